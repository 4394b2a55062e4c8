"""Whether one atomic store could have told clients what a history says that they were told.

Key by key, since keys are independent. `python -m node.simulation.linearizability FILE` checks a dump.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from node.simulation.history import History, Operation, Value
from node.simulation.search import Exhausted, Search

BUDGET: Final = 5_000_000  # attempts to place an operation, for each key; some 20 seconds


class Finding(StrEnum):
    """What was found out about a history."""

    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    VERSIONS_DO_NOT_GROW = "versions do not grow"  # some order explains all answers, but none with growing versions
    UNDECIDED = "undecided"  # the budget was spent


@dataclass(frozen=True)
class Verdict:
    """What was found out, and of a key that is not as it should be, how far the longest order came. True only if all is
    well."""

    finding: Finding
    operations: int
    key: Value | None = None
    placed: tuple[Operation, ...] = ()
    holds: str = ""
    stuck: tuple[Operation, ...] = ()  # none of these may come next; the first one has to
    note: str = ""  # what the budget left open

    def __bool__(self) -> bool:
        return self.finding is Finding.LINEARIZABLE

    def __str__(self) -> str:
        if self:
            return f"{self.finding}: {self.operations} operations"
        if self.finding is Finding.UNDECIDED:
            return f"{self.finding}: the budget was spent on the {self.operations} operations of key {self.key!r}"
        finding = f"{self.finding} {self.note}".rstrip()
        lines = [f"{finding}: key {self.key!r}, {len(self.placed)} of its {self.operations} operations in order"]
        lines += _table(self.placed[-SHOWN:], "the last of them:")
        lines += [f"then the key holds {self.holds}, and none of these may come next, though the first has to:"]
        return "\n".join(lines + _table(self.stuck))


SHOWN: Final = 8


def _table(operations: tuple[Operation, ...], title: str = "") -> list[str]:
    rows = [("events", "seconds", "client", "operation")]
    for each in operations:
        ends = "" if each.responded is None else str(each.responded)
        rows.append((f"{each.invoked}-{ends}", f"{each.invoked_at:.3f}", each.client, str(each)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [
        "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    return [title, *table] if title else table


def check(history: History, budget: int = BUDGET) -> Verdict:
    """The verdict on the first key with a violation, on the first that is undecided, or on the whole history. `budget`
    is for each key: so many attempts to place an operation. Raises ValueError if versions have no order."""
    keys: dict[Value, list[Operation]] = {}
    for operation in history.operations:
        keys.setdefault(operation.key, []).append(operation)
    verdict = Verdict(Finding.LINEARIZABLE, len(history.operations))
    for key, operations in keys.items():
        found = _check_key(key, operations, budget)
        if found.finding in (Finding.NOT_LINEARIZABLE, Finding.VERSIONS_DO_NOT_GROW):
            return found
        if verdict and not found:
            verdict = found
    return verdict


def _check_key(key: Value, operations: list[Operation], budget: int) -> Verdict:
    """Asks for an order with growing versions; if there is none, for any, to tell the two violations apart."""
    count = len(operations)
    search = Search(operations, growing=True, budget=budget)
    try:
        if search.succeeds():
            return Verdict(Finding.LINEARIZABLE, count)
    except Exhausted:
        return Verdict(Finding.UNDECIDED, count, key)
    finding, note = Finding.NOT_LINEARIZABLE, ""
    anyhow = Search(operations, growing=False, budget=budget // 5)
    try:
        if anyhow.succeeds():
            finding = Finding.VERSIONS_DO_NOT_GROW
        else:
            search = anyhow
    except Exhausted:
        note = "with growing versions; whether it is without was not found out"
    return Verdict(finding, count, key, search.placed(), search.holds(), tuple(search.stuck), note)


def main(arguments: list[str] | None = None) -> int:
    """Check a dumped history. 0: linearizable, 1: it is not or is undecided, 2: the file is not a history."""
    parser = ArgumentParser(prog="python -m node.simulation.linearizability", description=main.__doc__)
    parser.add_argument("file", type=Path, help="what History.dump wrote")
    parser.add_argument("--budget", type=int, default=BUDGET, help="attempts to place an operation, for each key")
    chosen = parser.parse_args(arguments)
    try:
        verdict = check(History.load(chosen.file), chosen.budget)
    except (OSError, ValueError) as error:
        print(f"{chosen.file}: {error}", file=sys.stderr)
        return 2
    print(verdict)
    return 0 if verdict else 1


if __name__ == "__main__":
    sys.exit(main())
