"""What keeps a supervisor running, with a systemd, a loginctl and a cron that do as they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.deploy.host.keeper import Keeper
from node.deploy.host.layout import Layout

PROGRAM = """#!/bin/sh
echo "$(basename $0) $*" >> {calls}
case "$*" in
  *show-user*) echo Linger={linger} ;;
  *show-environment*) exit {user_units} ;;
  -l) cat {table} 2>/dev/null || {{ echo "no crontab for chord" >&2; exit 1; }} ;;
  -) cat > {table} ;;
esac
"""


class System:
    """A host with programs of its own."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, linger: str, user_units: int) -> None:
        self._calls, self.table = directory / "calls", directory / "table"
        self._calls.touch()
        programs = directory / "bin"
        programs.mkdir()
        for name in ("systemctl", "loginctl", "crontab"):
            text = PROGRAM.format(calls=self._calls, table=self.table, linger=linger, user_units=user_units)
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        monkeypatch.setenv("HOME", str(directory))
        base = directory / "my ring"
        (base / "releases" / "one").mkdir(parents=True)
        (base / "current").symlink_to("releases/one")
        self.keeper = Keeper(Layout(base))
        self.unit = directory / ".config" / "systemd" / "user" / "my-ring.service"

    def calls(self) -> list[str]:
        """What was typed."""
        return self._calls.read_text().splitlines()


def test_a_user_who_lingers_gets_a_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(tmp_path, monkeypatch, linger="yes", user_units=0)
    assert system.keeper.start() == "systemd"
    assert "systemctl --user restart my-ring.service" in system.calls()
    assert (
        f'ExecStart="{tmp_path}/my ring/current/venv/bin/python" -m node.deploy.host.supervisor'
        in system.unit.read_text()
    )
    assert "Restart=on-failure" in system.unit.read_text()
    assert not system.table.exists(), "cron does not start it a second time"
    system.keeper.stop(15, 1.0)
    assert system.calls()[-2:] == ["systemctl --user disable my-ring.service", "crontab -l"]
    system.keeper.forget()
    assert not system.unit.exists()


@pytest.mark.parametrize("cron", ["none", "forbidden"])
def test_where_there_is_neither_it_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cron: str) -> None:
    system = System(tmp_path, monkeypatch, linger="no", user_units=0)
    crontab = tmp_path / "bin" / "crontab"
    if cron == "none":
        crontab.unlink()
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    else:
        crontab.write_text("#!/bin/sh\necho 'You (chord) are not allowed to use this program' >&2; exit 1\n")
    assert system.keeper.start() == "nothing"


@pytest.mark.parametrize(("linger", "user_units"), [("no", 0), ("yes", 1)])
def test_where_a_unit_would_end_with_the_login_cron_starts_it_after_a_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linger: str, user_units: int
) -> None:
    system = System(tmp_path, monkeypatch, linger, user_units)
    system.table.write_text("@daily somebody elses\n")
    assert system.keeper.start() == "supervisor"
    assert not system.unit.exists()
    kept, ours = system.table.read_text().splitlines()
    assert kept == "@daily somebody elses"
    assert ours.startswith(f"@reboot '{tmp_path}/my ring/current/venv/bin/python' -m node.deploy.host.supervisor #")
    system.keeper.stop(15, 1.0)
    assert system.table.read_text() == "@daily somebody elses\n"
