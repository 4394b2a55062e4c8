"""How `fab` runs our tasks: each once for all hosts, and the rest of a line without the hosts that failed.

Fabric would run a task once for every host of `-H`, one after the other. Named in fabric.yaml.
"""

from __future__ import annotations

from typing import Any

import fabric.executor  # type: ignore[import-untyped]
from invoke.exceptions import Exit

from node.deploy.fleet import HostsFailed
from node.errors import BadUsage, RingError


class Executor(fabric.executor.Executor):  # type: ignore[misc]
    """Tasks find the hosts of `-H` in `config.named_hosts`, and those that failed in `config.failed_hosts`."""

    def expand_calls(self, calls: Any, apply_hosts: bool = True) -> Any:
        """The calls, without one for each host, unless it is a command typed after `--`."""
        return super().expand_calls(calls, apply_hosts=apply_hosts and bool(self.core.remainder))

    def execute(self, *tasks: Any) -> Any:
        """Run the tasks of a line. Exits with the code of the first that failed, when all are done."""
        named = self.core[0].args.hosts.value
        self.config.named_hosts = tuple(host for host in (named or "").split(",") if host)
        self.config.failed_hosts = frozenset()
        code = 0
        for each in [[task] for task in tasks] or [[]]:
            try:
                super().execute(*each)
            except HostsFailed as failure:
                self.config.failed_hosts |= failure.hosts
                code = code or failure.code
            except RingError as error:
                raise Exit(f"fab: {error}", code=2 if isinstance(error, BadUsage) else 1) from None
        if code:
            raise Exit(code=code)
