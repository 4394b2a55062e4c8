"""A short run of what `make fuzz` does at length, and proof that it would see what it looks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import uvloop
from rpyc.core import consts

from node.remote.connection import Connection
from node.remote.exposure import Exposed, Exposure
from node.remote.listener import Listener
from node.remote.requests import Requests
from tests.fuzz.attack import Attack, Target
from tests.fuzz.entrances import Entrances
from tests.fuzz.oracle import Finding, judge
from tests.fuzz.requests import CLIENT, KINDS, OPEN_RING, May, hostile
from tests.fuzz.rings import RINGS, started
from tests.fuzz.siege import SETTINGS, Siege
from tests.fuzz.witness import Witness
from tests.remote.ends import HOST, ROOT_PACK, run

SEED = 2026


@pytest.mark.parametrize("ring", ["open", "certified"])
def test_a_short_siege(tmp_path: Path, ring: str) -> None:
    async def scenario() -> None:
        sentinel = tmp_path / "sentinel"
        sentinel.write_text("untouched")
        node = await asyncio.to_thread(started, ring, tmp_path)
        try:
            await Siege(node, await Entrances.to(node, SETTINGS), SEED, sentinel).lay(1600, 1600)
        finally:
            node.kill()

    uvloop.run(scenario())


# -- would it see anything? ------------------------------------------------------------------------------------------


class Everything:
    """A root with the exposed methods of a node, which do nothing, and one that is not exposed."""

    def hidden(self, *arguments: object) -> str:
        return "reached"


async def _nothing(self: object, *arguments: object, **words: object) -> None:
    """As an exposed method."""


for _name in OPEN_RING.exposed:
    setattr(Everything, f"exposed_{_name}", _nothing)


def findings(monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """What attackers see wrong from outside, and the witness from inside."""
    tripped: list[str] = []
    monkeypatch.setattr(Connection, "take", Connection.take)  # what the witness replaces is put back after the test
    monkeypatch.setattr(Requests, "_answer_later", Requests._answer_later)
    monkeypatch.setattr("tests.fuzz.witness._is_exposed", lambda code: code is _nothing.__code__)
    Witness("/nowhere", tripped.append).surround()

    async def scenario() -> str:
        async with Listener(SETTINGS, HOST, 0, Everything()) as listener:
            try:
                for number in range(4):
                    await Attack(Target(listener.port, OPEN_RING), f"{SEED}/{number}", 150).run()
            except Finding as finding:
                return str(finding)
        return ""

    return run(scenario()), tripped


def test_nothing_is_found_where_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings(monkeypatch) == ("", [])


def opened(monkeypatch: pytest.MonkeyPatch, number: int, handler: Callable[..., object]) -> None:
    """One more handler, or another one."""
    handlers = {**Connection._request_handlers(), number: handler}
    monkeypatch.setattr(Connection, "_request_handlers", lambda self: handlers)


def leaks_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attributes are looked up where there is no exposed method."""
    method = Exposure.method

    def leaky(self: Exposure, target: object, name: object) -> Exposed:
        try:
            return method(self, target, name)
        except AttributeError:
            return Exposed(ROOT_PACK, str(name), getattr(Everything(), str(name)))

    monkeypatch.setattr(Exposure, "method", leaky)


def answers_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """One handler of RPyC's is open that should not be."""
    opened(monkeypatch, consts.HANDLE_STR, lambda connection, target, *more: str(target))


def fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exposed method does not expect what it gets."""
    monkeypatch.setattr(Everything, "exposed_get", lambda self, key: key.nothing)


def takes_any_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in place of a name is made one."""
    method = Exposure.method
    monkeypatch.setattr(Exposure, "method", lambda self, target, name: method(self, target, _text(name)))


def _text(name: object) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def answers_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unasked answers are answered."""
    dispatch = Connection._dispatch

    def answering(self: Connection, data: bytes) -> None:
        dispatch(self, data)
        if not self.is_request(data):
            self._requests._reply(1, None)

    monkeypatch.setattr(Connection, "_dispatch", answering)


@pytest.mark.filterwarnings("ignore:coroutine '_nothing' was never awaited")
@pytest.mark.parametrize("mutant", [leaks_names, answers_text, fails, takes_any_kind, answers_twice])
def test_attackers_see_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutant(monkeypatch)
    assert findings(monkeypatch)[0]


def test_the_witness_sees_what_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the answers would look right."""
    handle = Connection._handle_call

    def calls_more(self: Connection, target: Exposed, args: object, kwargs: object = ()) -> object:
        return call_of_connection(self, target, args, kwargs)

    def call_of_connection(self: Connection, target: Exposed, args: object, kwargs: object) -> object:
        return handle(self, target, args, kwargs)

    opened(monkeypatch, consts.HANDLE_CALL, calls_more)
    seen, tripped = findings(monkeypatch)
    assert seen == "" and "TRIPPED" in tripped[0] and "calls_more" in tripped[0]


def test_every_kind_is_sent_and_one_seed_is_one_attack() -> None:
    first, second = ([hostile(Random(SEED), CLIENT, n) for n in range(5)] for _ in range(2))
    assert first == second
    random = Random(SEED)
    sent = {hostile(random, CLIENT, n).kind.partition(",")[0] for n in range(5000)}
    assert sent >= {kind.__name__ for kind in KINDS} | {"unasked", "bomb"}


def test_what_no_node_may_say() -> None:
    tells = (consts.MSG_EXCEPTION, (("builtins", "KeyError"), (), (), "<kept in the log of the node>"))
    assert judge(*tells, May.REFUSAL, OPEN_RING)
    strange = (consts.MSG_REPLY, (consts.LABEL_REMOTE_REF, ("builtins.dict", 1, 2)))
    assert judge(*strange, May.METHOD | May.ANSWER, OPEN_RING)
    assert set(RINGS) == {"open", "certified", "certified, eventual"}
