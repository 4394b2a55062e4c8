"""`python main.py` from start to end: a ring of its own, long files, an interruption."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ring.nodes import ROOT, RingOfProcesses, eventually


def children_in(directory: Path) -> list[int]:
    """Processes that keep their data below a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if str(directory) in command and "serve" in command:
                found.append(int(entry.name))
    return found


def peak_memory(pid: int) -> int:
    """The most memory a process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def started(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    """main.py with its temporary files below `tmp_path`."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "HOME": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def something_listens_on_the_default_port() -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", 18861)) == 0


own_ring = pytest.mark.skipif(
    something_listens_on_the_default_port(), reason="something listens on port 18861: main.py would use that ring"
)


@own_ring
def test_it_starts_a_ring_does_the_job_and_takes_it_down(tmp_path: Path) -> None:
    process = started(tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    assert "0 wrong, 0 malformed" in out
    assert len(re.findall(r"^127\.0\.0\.1:\d+ ", out, re.MULTILINE)) == 5
    assert children_in(tmp_path) == []
    assert list(tmp_path.glob("rpychord-*")) == []


@own_ring
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    script = tmp_path / "long.txt"
    script.write_text("".join(f"put key{n} {n}\n" for n in range(200_000)))
    process = started(tmp_path, str(script))
    eventually(lambda: len(children_in(tmp_path)) == 5, what="five node processes")
    time.sleep(0.5)  # somewhere in the middle of the file, wherever that is
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    eventually(lambda: children_in(tmp_path) == [], what="no process left")
    assert list(tmp_path.glob("rpychord-*")) == []


def test_a_long_file_takes_no_more_memory_than_a_short_one(ring: RingOfProcesses, tmp_path: Path) -> None:
    node = ring.of(3)[0]
    peaks = []
    for lines in (2_000, 12_000):
        script = tmp_path / f"{lines}.txt"
        with script.open("w") as file:
            for n in range(lines // 2):
                file.write(f"put key{n} {n}\nget key{n}\n")
        process = started(tmp_path, str(script), "--node", f"{node.host}:{node.port}")
        peak = 0
        while process.poll() is None:
            try:
                peak = max(peak, peak_memory(process.pid))
            except (OSError, AssertionError):
                break
            time.sleep(0.02)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert f"{lines // 2:,} put, {lines // 2:,} got" in out and f"{lines // 2:,} keys verified" in out
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 16 * 1024 * 1024
