"""The checker of histories: each kind of lie by name, and agreement with a search through all orders."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from node.simulation.history import CONFLICT, History, Operation
from node.simulation.linearizability import Finding, check, main

LINEARIZABLE = Finding.LINEARIZABLE
NOT = Finding.NOT_LINEARIZABLE
GROW = Finding.VERSIONS_DO_NOT_GROW
UNKNOWN = "unknown"
FAILED = "failed"


def version(number: int) -> tuple[int, int]:
    return (1, number)


def history_of(script: str) -> History:
    """A history written down: an operation for each line, `call -> answer`, with what it spans drawn in front of it.

    The columns up to the bar are time, the operation spans the dashes; one of unknown outcome is `-> unknown`. Versions
    are written as numbers.
    """
    lines = [line.split("|", 1) for line in script.splitlines() if line.strip()]
    history = History(lambda: 0.0)
    asked: dict[int, Operation] = {}
    for column in range(max(len(spans) for spans, _ in lines)):
        for number, (spans, text) in enumerate(lines):
            if spans.find("-") == column:
                call = text.split("->")[0].split()
                expected = version(int(call[2])) if len(call) > 2 and call[2] != "None" else None
                asked[number] = history.invoke(f"c{number}", call[0], "k", *call[1:2], version=expected)
        for number, (spans, text) in enumerate(lines):
            if spans.rfind("-") == column:
                tell(history, asked[number], text.split("->")[1].split())
    return history


def tell(history: History, operation: Operation, answer: list[str]) -> None:
    match answer:
        case ["unknown"]:
            history.unknown(operation)
        case ["failed"]:
            history.failed(operation)
        case [value, number]:
            history.ok(operation, (value, version(int(number))))
        case [word] if word in ("None", "True", "False"):
            history.ok(operation, {"None": None, "True": True, "False": False}[word])
        case [word]:
            history.ok(operation, version(int(word)) if word.isdigit() else word)


CLAIMS = {
    "a put is read after it": (LINEARIZABLE, """
        --    | put a -> 1
          --  | get -> a
    """),
    "nothing is there before the first put": (LINEARIZABLE, """
        --    | get -> None
          --  | get_versioned -> None
          --  | delete -> False
    """),
    "a read that overlaps a put sees either value": (LINEARIZABLE, """
        --       | put a -> 1
          ----   | put b -> 2
          --     | get -> a
            --   | get -> b
    """),
    "a stale read": (NOT, """
        --       | put a -> 1
          --     | put b -> 2
            --   | get -> a
    """),
    "a new value is not followed by the old one": (NOT, """
        --       | put a -> 1
          ------ | put b -> 2
          --     | get -> b
            --   | get -> a
    """),
    "a read from the future": (NOT, """
        --       | get -> a
          --     | put a -> 1
    """),
    "a value that nobody wrote": (NOT, """
        --       | put a -> 1
          --     | get -> b
    """),
    "a value that a failed put wrote": (NOT, """
        --       | put a -> failed
          --     | get -> a
    """),
    "a lost write": (NOT, """
        --       | put a -> 1
          --     | get -> None
    """),
    "a versioned read of the value of one put and the version of another": (NOT, """
        --       | put a -> 1
          --     | put b -> 2
            --   | get_versioned -> b 1
    """),
    "a put_if on the version read": (LINEARIZABLE, """
        --       | put a -> 1
          --     | get_versioned -> a 1
            --   | put_if b 1 -> 2
              -- | get_versioned -> b 2
    """),
    "a lost update": (NOT, """
        --       | put a -> 1
          --     | put_if b 1 -> 2
            --   | get_versioned -> a 1
    """),
    "two successful put_if on the same version": (NOT, """
        --       | put a -> 1
          --     | put_if b 1 -> 2
          --     | put_if c 1 -> 3
    """),
    "two creations without a delete between them": (NOT, """
        --       | put_if a None -> 1
          --     | put_if b None -> 2
    """),
    "two creations with a delete between them": (LINEARIZABLE, """
        --       | put_if a None -> 1
          --     | delete -> True
            --   | put_if b None -> 2
    """),
    "a conflict with a put that overlaps": (LINEARIZABLE, """
        --       | put a -> 1
          ----   | put b -> 2
          ----   | put_if c 1 -> conflict
    """),
    "a conflict that never could be": (NOT, """
        --       | put a -> 1
          --     | put_if b 1 -> conflict
            --   | get_versioned -> a 1
    """),
    "a conflict of a creation where nothing is": (NOT, """
        --       | put_if b None -> conflict
    """),
    "a conflict on what was deleted": (LINEARIZABLE, """
        --       | put a -> 1
          --     | delete -> True
            --   | put_if b 1 -> conflict
    """),
    "a delete that answers True twice": (NOT, """
        --       | put a -> 1
          ----   | delete -> True
          ----   | delete -> True
    """),
    "a delete that answers False where something is": (NOT, """
        --       | put a -> 1
          --     | delete -> False
    """),
    "a deleted value that is back": (NOT, """
        --       | put a -> 1
          --     | delete -> True
            --   | get -> a
    """),
    "a put of unknown outcome may have happened": (LINEARIZABLE, """
        --       | put a -> unknown
          --     | get -> a
    """),
    "or not": (LINEARIZABLE, """
        --       | put a -> unknown
          --     | get -> None
    """),
    "or may happen long after": (LINEARIZABLE, """
        --       | put a -> unknown
          --     | put b -> 1
            --   | get -> b
              -- | get -> a
    """),
    "but not before it was asked for": (NOT, """
        --       | get -> a
          --     | put a -> unknown
    """),
    "a put of unknown outcome seen and then unseen again": (NOT, """
        --       | put a -> 1
          --     | put b -> unknown
            --   | get -> b
              -- | get -> a
    """),
    "a put of unknown outcome seen twice with another value between": (NOT, """
        --         | put b -> unknown
          --       | get -> b
            --     | put a -> 1
              --   | get -> a
                -- | get -> b
    """),
    "an operation that never returns": (LINEARIZABLE, """
        -------- | put b -> unknown
        --       | put a -> 1
          --     | get -> b
    """),
    "a put that nobody read explains a conflict": (LINEARIZABLE, """
        --       | put a -> 1
          --     | put b -> unknown
            --   | put_if c 1 -> conflict
              -- | put d -> 3
    """),
    "a put that nobody read explains what was deleted, once": (NOT, """
        --       | put a -> unknown
          --     | delete -> True
            --   | delete -> True
    """),
    "a delete of unknown outcome": (LINEARIZABLE, """
        --       | put a -> 1
          --     | delete -> unknown
            --   | get -> a
              -- | put_if b None -> 2
    """),
    "a put_if of unknown outcome whose condition never holds": (NOT, """
        --       | put a -> 1
          --     | put b -> 2
            --   | put_if c 1 -> unknown
              -- | get -> c
    """),
    "a put_if of unknown outcome makes the next one conflict": (LINEARIZABLE, """
        --       | put a -> 1
          --     | put_if b 1 -> unknown
            --   | put_if c 1 -> conflict
              -- | get_versioned -> b 2
    """),
    "the version of a put of unknown outcome, once told, stays": (NOT, """
        --       | put a -> unknown
          --     | get_versioned -> a 1
            --   | get_versioned -> a 2
    """),
    "a put_if on the version of a put of unknown outcome": (LINEARIZABLE, """
        --       | put a -> unknown
          --     | get_versioned -> a 4
            --   | put_if b 4 -> 5
    """),
    "a conflict says which version it is not": (NOT, """
        --       | put a -> None
          --     | put_if b 4 -> conflict
            --   | get_versioned -> a 4
    """),
    "a put_if of unknown outcome on one of unknown outcome": (LINEARIZABLE, """
        --       | put a -> unknown
          --     | put_if b 4 -> unknown
            --   | get_versioned -> b 5
    """),
    "a later put with a smaller version": (GROW, """
        --       | put a -> 2
          --     | put b -> 1
            --   | get -> b
    """),
    "two puts with the same version": (GROW, """
        --       | put a -> 2
        --       | put b -> 2
    """),
    "versions do not start again after a delete": (GROW, """
        --       | put a -> 2
          --     | delete -> True
            --   | put b -> 1
    """),
    "a version seen of a put of unknown outcome is one of those that grow": (GROW, """
        --       | put a -> 2
          --     | put b -> unknown
            --   | get_versioned -> b 1
    """),
    "puts that overlap take the order of their versions": (NOT, """
        --       | put a -> 2
        --       | put b -> 1
          --     | get -> c
    """),
    "puts that overlap are not read in another order than their versions": (GROW, """
        --       | put a -> 2
        --       | put b -> 1
          --     | get -> b
    """),
}  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_one_store_could_have_said_and_what_not(claim: str) -> None:
    finding, script = CLAIMS[claim]
    history = history_of(script)
    assert check(history).finding is finding
    assert brute_force(history.operations) is finding


# -- verdicts ----------------------------------------------------------------------------------------------------


def test_keys_are_independent() -> None:
    history = History(lambda: 0.0)
    for key in ("x", "y"):
        history.ok(history.invoke("c", "put", key, key), version(1))
    history.ok(history.invoke("c", "get", "y"), "y")
    assert check(history)
    history.ok(history.invoke("c", "get", "x"), "y")
    assert check(history).key == "x"


def test_a_violation_names_what_fits_and_what_does_not() -> None:
    history = history_of("""
        --         | put a -> 1
          --       | put b -> 2
            --     | get -> b
              --   | get -> a
                -- | put c -> 3
    """)
    verdict = check(history)
    assert not verdict
    assert [str(each) for each in verdict.placed] == ["put('a') -> (1, 1)", "put('b') -> (1, 2)", "get() -> 'b'"]
    assert [str(each) for each in verdict.stuck] == ["get() -> 'a'"]
    assert "not linearizable: key 'k', 3 of its 5 operations" in str(verdict)
    assert "the key holds 'b' at version (1, 2)" in str(verdict)


def test_what_cannot_be_decided_within_the_budget_is_not_called_linearizable() -> None:
    history = history_of("\n".join(f"  ----  | put v{n} -> None" for n in range(9)) + "\n      -- | get -> other")
    verdict = check(history, budget=100)
    assert verdict.finding is Finding.UNDECIDED
    assert not verdict
    assert check(history).finding is NOT


def test_a_violation_whose_kind_the_budget_leaves_open_stays_one() -> None:
    puts = "\n".join(f"  ----  | put v{n} -> {n + 1}" for n in range(9))
    verdict = check(history_of(puts + "\n      -- | get -> other"), budget=500)
    assert verdict.finding is NOT
    assert "whether it is without was not found out" in str(verdict)


def test_a_violation_goes_before_what_is_undecided() -> None:
    history = history_of("\n".join(f"  ----  | put v{n} -> None" for n in range(9)) + "\n      -- | get -> other")
    history.ok(history.invoke("c", "get", "another key"), "from nowhere")
    assert check(history, budget=100).key == "another key"


def test_versions_without_an_order_are_refused() -> None:
    history = History()
    history.ok(history.invoke("c", "put", "k", "a"), (1,))
    history.ok(history.invoke("c", "put", "k", "b"), ("one",))
    with pytest.raises(ValueError, match="'k': its versions cannot be compared"):
        check(history)


# -- histories ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("put", "text"),
        ("get", (1, 2)),
        ("get_versioned", "a"),
        ("get_versioned", ("a", 1)),
        ("delete", None),
        ("put_if", None),
        ("put_if", "other"),
    ],
)
def test_what_is_no_answer_to_an_operation_is_refused(kind: str, answer: object) -> None:
    history = History()
    operation = history.invoke("c", kind, "k", "a" if kind.startswith("put") else None)
    with pytest.raises(ValueError, match="that is no answer"):
        history.ok(operation, answer)


def test_an_operation_has_one_outcome() -> None:
    history = History()
    operation = history.invoke("c", "get", "k")
    history.unknown(operation)
    with pytest.raises(ValueError, match="has an outcome already"):
        history.ok(operation, None)


def test_a_put_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="text or integers"):
        History().invoke("c", "put", "k")


def test_a_dumped_history_is_the_same_when_loaded(tmp_path: Path) -> None:
    for seed in range(50):
        history = random_history(Random(seed), 12)
        history.dump(tmp_path / "history")
        loaded = History.load(tmp_path / "history")
        assert loaded.operations == history.operations
        assert check(loaded) == check(history)


def test_a_loaded_history_goes_on(tmp_path: Path) -> None:
    history_of("-- | put a -> 1").dump(tmp_path / "history")
    history = History.load(tmp_path / "history")
    history.ok(history.invoke("c", "get", "k"), None)
    assert check(history).finding is NOT


def test_the_command_prints_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history"
    for claim, code, said in (
        ("a put is read after it", 0, "linearizable: 2 operations\n"),
        ("a stale read", 1, "not linearizable: key 'k'"),
        ("two puts with the same version", 1, "versions do not grow: key 'k'"),
    ):
        history_of(CLAIMS[claim][1]).dump(path)
        assert main([str(path)]) == code
        assert capsys.readouterr().out.startswith(said)
    assert main([str(path), "--budget", "0"]) == 1
    assert capsys.readouterr().out.startswith("undecided")


def test_the_command_runs_as_a_module(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("no history\n")
    command = [sys.executable, "-m", "node.simulation.linearizability", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{path}: not a history: its first line does not say so\n"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: [],
        lambda lines: lines[1:],
        lambda lines: lines[:-1],
        lambda lines: [lines[0], lines[2], lines[1]],
        lambda lines: [lines[0], lines[1], lines[1]],
        lambda lines: [*lines[:2], b"\xff\xfe"],
        lambda lines: [*lines[:2], b"[" * 100_000],
        lambda lines: [*lines[:2], b"{}"],
        lambda lines: [*lines[:2], lines[2].replace(b'"get"', b'"take"')],
        lambda lines: [*lines[:2], lines[2].replace(b'"ok"', b'"well"')],
        lambda lines: [*lines[:2], lines[2].replace(b'"responded":4', b'"responded":1')],
        lambda lines: [*lines[:2], lines[2].replace(b'"answer":"a"', b'"answer":{}')],
        lambda lines: [b'{"format": []}', *lines[1:]],
        lambda lines: [b"\x00" * 4096],
    ],
)
def test_a_file_that_is_no_history_gives_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Any
) -> None:
    path = tmp_path / "history"
    history_of(CLAIMS["a put is read after it"][1]).dump(path)
    path.write_bytes(b"\n".join(spoil(path.read_bytes().splitlines())))
    assert main([str(path)]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith(f"{path}: ") and said.err.count("\n") == 1


def test_a_file_that_is_not_there_gives_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "missing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# -- all orders, one after the other -----------------------------------------------------------------------------


def orders(left: list[Operation], placed: list[Operation]) -> Iterator[list[Operation]]:
    """All orders that real time allows, of all that happened and some of what may have."""
    sure = [each for each in left if each.outcome == "ok"]
    if not sure:
        yield placed
    for each in left:
        if not any(other is not each and other.responded < each.invoked for other in sure):
            yield from orders([other for other in left if other is not each], [*placed, each])


def explains(order: list[Operation], growing: bool) -> bool:
    """Whether a store that does this gives all the answers, for some choice of the versions that it did not tell.

    Each version is the told one or that of a write, by its place; what must be equal and what must differ is noted
    first and compared afterwards.
    """
    now: tuple[Any, int] | None = None
    told: dict[int, set[Any]] = {}
    differ: list[tuple[int, Any]] = []
    for place, each in enumerate(order):
        sure = each.outcome == "ok"
        match each.kind:
            case "put":
                now = (each.value, place)
                told[place] = {each.answer} if sure and each.answer is not None else set()
            case "get" if sure and each.answer != (now and now[0]):
                return False
            case "get_versioned" if sure:
                if (each.answer and each.answer[0]) != (now and now[0]):
                    return False
                if now:
                    told[now[1]].add(each.answer[1])
            case "delete":
                if sure and each.answer is not (now is not None):
                    return False
                now = None
            case "put_if" if sure and each.answer == CONFLICT:
                if each.version is None and now is None:
                    return False
                if each.version is not None and now is not None:
                    differ.append((now[1], each.version))
            case "put_if":
                if (each.version is None) is not (now is None):
                    return False
                if now:
                    told[now[1]].add(each.version)
                now = (each.value, place)
                told[place] = {each.answer} if sure else set()
    if any(len(versions) > 1 for versions in told.values()):
        return False
    if any(unlike in told[place] for place, unlike in differ):
        return False
    grown = [next(iter(versions)) for _, versions in sorted(told.items()) if versions]
    return not growing or all(earlier < later for earlier, later in pairwise(grown))


def brute_force(operations: list[Operation]) -> Finding:
    found = NOT
    for order in orders([each for each in operations if each.outcome != "failed"], []):
        if explains(order, growing=True):
            return LINEARIZABLE
        if found is NOT and explains(order, growing=False):
            found = GROW
    return found


class AtomicStore:
    """One key, as it should be. Versions grow, sometimes by more than one."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.highest = 0
        self.now: dict[Any, tuple[Any, tuple[int, int]]] = {}

    def apply(self, operation: Operation) -> Any:
        now = self.now.get(operation.key)
        match operation.kind:
            case "get":
                return now and now[0]
            case "get_versioned":
                return now
            case "delete":
                return self.now.pop(operation.key, None) is not None
            case "put_if" if operation.version != (now and now[1]):
                return CONFLICT
        self.highest += self.random.choice((1, 1, 2))
        self.now[operation.key] = (operation.value, version(self.highest))
        return version(self.highest)


KINDS = ("put", "get", "get_versioned", "delete", "put_if")


def random_history(random: Random, size: int, clients: int = 3, keys: int = 1, lost: float = 0.15) -> History:
    """What clients see of an atomic store that loses some answers, and does some of what it lost much later."""
    history, store = History(lambda: 0.0), AtomicStore(random)
    busy: dict[int, tuple[Operation, Any]] = {}
    late: list[Operation] = []
    seen: dict[Any, list[Any]] = {}
    values = range(3) if random.random() < 0.5 else range(size)
    asked = 0
    tells = random.random() < 0.8
    while asked < size or busy:
        client = random.randrange(clients)
        if late and random.random() < 0.1:
            store.apply(late.pop(random.randrange(len(late))))
        elif client not in busy and asked < size:
            asked += 1
            key, kind = f"k{random.randrange(keys)}", random.choice(KINDS)
            value = random.choice(values) if kind.startswith("put") else None
            expected = random.choice([None, *seen.get(key, ())[-2:]]) if kind == "put_if" else None
            operation = history.invoke(f"c{client}", kind, key, value, expected)
            busy[client] = (operation, None)
            if random.random() < lost:
                del busy[client]
                late += random.choice(([], [operation]))
                random.choice((history.unknown, lambda _: None))(operation)
        elif client in busy and busy[client][1] is None:
            operation = busy[client][0]
            busy[client] = (operation, (store.apply(operation),))
            if random.random() < lost / 2:
                history.unknown(operation)
                del busy[client]
        elif client in busy:
            operation, (answer,) = busy.pop(client)
            if operation.kind == "get_versioned" and answer:
                seen.setdefault(operation.key, []).append(answer[1])
            if operation.kind.startswith("put") and answer != CONFLICT:
                seen.setdefault(operation.key, []).append(answer)
            history.ok(operation, None if operation.kind == "put" and not tells else answer)
    return history


def other_answer(random: Random, operation: Operation) -> Any:
    match operation.kind:
        case "put":
            return version(random.randrange(1, 7))
        case "get":
            return random.choice([None, 0, 1, 2])
        case "get_versioned":
            return random.choice([None, (random.randrange(3), version(random.randrange(1, 7)))])
        case "delete":
            return not operation.answer
    return random.choice([CONFLICT, version(random.randrange(1, 7))])


def mutated(random: Random, history: History) -> History:
    """The same history with another answer or two."""
    liar = History(lambda: 0.0)
    told = [each.invoked for each in history.operations if each.outcome == "ok"]
    lies = random.sample(told, min(len(told), random.choice((1, 1, 2))))
    events: list[tuple[int, Operation, bool]] = []
    for each in history.operations:
        events.append((each.invoked, each, True))
        if each.responded is not None:
            lie = other_answer(random, each) if each.invoked in lies else each.answer
            events.append((each.responded, replace(each, answer=lie), False))
    again: dict[int, Operation] = {}
    for _, each, asked in sorted(events, key=lambda event: event[0]):
        if asked:
            again[each.invoked] = liar.invoke(each.client, each.kind, each.key, each.value, each.version)
        elif each.outcome == "ok":
            liar.ok(again[each.invoked], each.answer)
        else:
            liar.unknown(again[each.invoked])
    return liar


@pytest.mark.parametrize("part", range(4))
def test_histories_of_an_atomic_store_are_linearizable(part: int) -> None:
    for seed in range(part, 4000, 4):
        random = Random(f"atomic {seed}")
        history = random_history(random, random.randint(1, 40), random.randint(1, 6), random.randint(1, 3))
        verdict = check(history)
        assert verdict, f"seed {seed}: {verdict}"


@pytest.mark.parametrize("part", range(4))
def test_the_checker_agrees_with_a_search_through_all_orders(part: int) -> None:
    found = []
    for seed in range(part, 4000, 4):
        random = Random(f"mutated {seed}")
        history = mutated(random, random_history(random, random.randint(2, 6), random.randint(1, 4), lost=0.3))
        found.append(brute_force(history.operations))
        assert check(history).finding is found[-1], f"seed {seed}: {[str(each) for each in history.operations]}"
    assert min(found.count(finding) for finding in (LINEARIZABLE, NOT, GROW)) > 20


def test_a_long_history_of_many_clients_is_checked() -> None:
    random = Random("long")
    history = random_history(random, 50_000, clients=16, keys=20, lost=0.005)
    assert sum(each.outcome == "unknown" for each in history.operations) > 200
    verdict = check(history)
    assert verdict and verdict.operations == 50_000
