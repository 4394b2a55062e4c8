"""What `main.py` makes of the answers of a ring: right, wrong, unknown. The ring here misbehaves as told."""

from __future__ import annotations

import asyncio
import io
from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from node.cli import job
from node.codec import Address
from node.errors import BadValue, OutcomeUnknown, RingError, Unavailable
from node.settings import Settings

HERE = Address("127.0.0.1", 5001)
SETTINGS = replace(Settings(), backoff_limit=0.001)
INFOS = (("127.0.0.1", 5001, "00" * 20, "80" * 20), ("127.0.0.1", 5002, "80" * 20, "00" * 20))


class Ring:
    """Keys and values, and what goes wrong next: (verb, error, whether it is done nevertheless)."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}
        self.faults: deque[tuple[str, RingError, bool]] = deque()
        self.infos = INFOS
        self.read_through: set[int] = set()
        self.calls: list[str] = []

    def fault(self, verb: str) -> tuple[RingError | None, bool]:
        if self.faults and self.faults[0][0] == verb:
            _, error, done = self.faults.popleft()
            return error, done
        return None, True


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    ring = Ring()

    class FakeSession:
        def __init__(self, nodes: list[Address], settings: Settings, tls: None) -> None:
            self.node = nodes[0]

        async def _do(self, verb: str, change: Any) -> Any:
            ring.calls.append(verb)
            await asyncio.sleep(0)
            error, done = ring.fault(verb)
            answer = change() if done else None
            if error is not None:
                raise error
            return answer

        async def put(self, key: str, value: str) -> tuple[int, int]:
            await self._do("put", lambda: ring.data.__setitem__(key, value))
            return (1, 1)

        async def get(self, key: str) -> str | None:
            ring.read_through.add(self.node.port)
            answer: str | None = await self._do("get", lambda: ring.data.get(key))
            return answer

        async def delete(self, key: str) -> bool:
            return bool(await self._do("delete", lambda: ring.data.pop(key, None) is not None))

        async def get_conn_info(self) -> Any:
            return ring.infos

        async def get_node(self, number: int, attribute: str) -> int:
            return len(ring.data)

        def close(self) -> None:
            pass

    monkeypatch.setattr(job, "Session", FakeSession)
    return ring


def done(script: str | bytes, node: Address = HERE) -> int:
    async def main() -> int:
        content = script.encode() if isinstance(script, str) else script
        run = job.Job(io.BytesIO(content), "in.txt", node, SETTINGS)
        try:
            return await run.run()
        finally:
            await run.close()

    return asyncio.run(asyncio.wait_for(main(), 30))


def test_a_file_that_is_true(ring: Ring, capsys: pytest.CaptureFixture[str]) -> None:
    assert done("put a 1\nget a\nput a 2\nget a\ndelete a\nget a\ndelete a\nput b 'x y'\n") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "3 put, 3 got, 2 deleted; 2 keys verified through 127.0.0.1:5002; 0 wrong, 0 malformed" in out
    assert ring.data == {"b": "x y"}


def test_keys_are_read_once_more_through_the_other_node(ring: Ring) -> None:
    assert done("put a 1\n") == 0
    assert ring.read_through == {5002}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_node_written_through_is_known_under_its_other_names(ring: Ring, host: str) -> None:
    assert done("put a 1\n", Address(host, 5001)) == 0
    assert ring.read_through == {5002}


def test_the_only_node_is_said_to_be_that(ring: Ring, capsys: pytest.CaptureFixture[str]) -> None:
    ring.infos = (("127.0.0.1", 5001, "00" * 20, "00" * 20),)
    assert done("put a 1\n") == 0
    assert "verified through 127.0.0.1:5001, the only node;" in capsys.readouterr().out


def test_where_keys_live(ring: Ring, capsys: pytest.CaptureFixture[str]) -> None:
    ring.infos = (*INFOS[:1], ("127.0.0.1", 5002, "40" + "00" * 19, "00" * 20))
    done("put a 1\n")
    table = [line.split() for line in capsys.readouterr().out.splitlines()[:3]]
    assert table == [
        ["node", "id", "keys", "share"],
        ["127.0.0.1:5001", "00000000..", "1", "75.0%"],
        ["127.0.0.1:5002", "40000000..", "1", "25.0%"],
    ]


def test_a_key_the_file_has_not_written_is_reported_not_judged(ring: Ring, capsys: pytest.CaptureFixture[str]) -> None:
    ring.data = {"old": "1"}
    assert done("get old\nget none\ndelete older\nget older\n") == 0
    out = capsys.readouterr().out
    assert "in.txt:1: 'old' is '1'\n" in out and "in.txt:2: 'none' is <absent>\n" in out and "in.txt:4" not in out


def test_a_lost_write_is_found(ring: Ring, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(dict[str, str]):
        def __setitem__(self, key: str, value: str) -> None:
            if value != "lost":
                super().__setitem__(key, value)

    ring.data = Forgetful()
    assert done("put a 1\nput a lost\nget a\nput b 1\ndelete b\ndelete c\nput c lost\ndelete c\n") == 1
    out, err = capsys.readouterr()
    assert sorted(err.splitlines()) == [
        "in.txt:2: 'a' read through 127.0.0.1:5002: '1' instead of 'lost', put in line 2",
        "in.txt:3: get 'a': '1' instead of 'lost', put in line 2",
        "in.txt:8: delete 'c': it was not there, line 7 put it",
    ]
    assert "3 wrong" in out


def test_what_a_refused_put_left_alone_is_still_expected(ring: Ring, capsys: pytest.CaptureFixture[str]) -> None:
    class Watching(dict[str, str]):
        def __setitem__(self, key: str, value: str) -> None:
            super().__setitem__(key, value)
            ring.faults.append(("put", BadValue("too long"), False))

    ring.data = Watching()
    assert done("put a 1\nput a 2\nget a\n") == 1
    assert capsys.readouterr().err == "in.txt:2: put 'a': too long\n"


@pytest.mark.parametrize("applied", [True, False])
def test_a_put_whose_outcome_is_unknown_is_done_again(ring: Ring, applied: bool) -> None:
    ring.faults.append(("put", OutcomeUnknown("?"), applied))
    assert done("put a 1\nget a\n") == 0
    assert ring.calls.count("put") == 2


@pytest.mark.parametrize("applied", [True, False])
def test_the_answer_of_a_delete_done_twice_says_nothing(ring: Ring, applied: bool) -> None:
    ring.faults.append(("delete", OutcomeUnknown("?"), applied))
    assert done("put a 1\ndelete a\nget a\n") == 0
    assert ring.calls.count("delete") == 2


def test_what_stays_unknown_is_wrong_and_nothing_is_expected_of_it(
    ring: Ring, capsys: pytest.CaptureFixture[str]
) -> None:
    ring.faults.extend([("put", OutcomeUnknown("no answer"), False)] * job.ATTEMPTS)
    assert done("put a 1\nget a\n") == 1
    out, err = capsys.readouterr()
    assert err == "in.txt:1: put 'a': no answer\n"
    assert "in.txt:2: 'a' is <absent>" in out and "0 keys verified" in out and "1 wrong" in out


def test_an_error_at_one_key_leaves_the_others_to_be_done(ring: Ring, capsys: pytest.CaptureFixture[str]) -> None:
    ring.faults.append(("get", Unavailable("start n3 again"), False))
    assert done("get x\nput a 1\n") == 1
    out, err = capsys.readouterr()
    assert err == "in.txt:1: get 'x': start n3 again\n"
    assert "1 keys verified" in out


def test_malformed_lines_alone_fail_it(ring: Ring, capsys: pytest.CaptureFixture[str]) -> None:
    assert done("what\nput a 1\n") == 1
    out, err = capsys.readouterr()
    assert err == "in.txt:1: 'what' is none of put, get, delete\n"
    assert "0 wrong, 1 malformed" in out


def test_operations_on_one_key_are_done_in_the_order_of_the_file(ring: Ring) -> None:
    lines = [f"put {n % 7} {n}\nget {n % 7}\n" for n in range(2000)]
    assert done("".join(lines)) == 0
    assert ring.data == {str(k): str(max(n for n in range(2000) if n % 7 == k)) for k in range(7)}
