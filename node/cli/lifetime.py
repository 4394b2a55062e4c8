"""From the start of a node to its end: what it says meanwhile, and what signals do to it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from node import __version__
from node.cli.memory import keep_giving_back
from node.cli.settings_file import Configuration
from node.codec import Address
from node.errors import RingError
from node.events import Event
from node.logs import Logs

if TYPE_CHECKING:
    from node.cli.processes import Servers
    from node.remote.node import NodeOptions

log = logging.getLogger(__name__)

OTHER_DESCRIPTORS = 900
"""Open files beside the connections of clients: the store's, those to other nodes, those of threads."""
SWITCH = 0.0005
"""Seconds after which the loop gives way to the thread that commits, which has little to do and is waited for."""
GARBAGE = 20_000
"""Objects made, more than thrown away, after which young ones are looked through for cycles. A batch makes many."""


async def serve(options: NodeOptions, configuration: Configuration) -> int:
    """Run a node until a signal. The first makes it leave, or rest if it is SIGUSR1; a second one ends it at once. At
    SIGHUP it reads its settings anew."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_unhandled)
    logs = Logs(configuration.logging)
    logs.take_crashes()
    try:
        return await _serve(options, configuration, logs)
    except Exception as error:
        if logs.options.file is not None:  # standard error is told by whoever called us
            Event.FAILED.tell(log, "%s", error if isinstance(error, RingError) else type(error).__name__)
        raise
    finally:
        logs.close()


def _log_unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What asyncio would say, without what it quotes."""
    log.error("%s", context["message"], exc_info=context.get("exception"))


def on_hang_up(reread: Callable[[], None], leave: Callable[[], None]) -> None:
    """Have SIGHUP mean to read the settings anew; or, if the terminal that this was started in is gone, to leave: once,
    for the shell and the kernel both may say so."""
    terminals = [descriptor for descriptor in range(3) if os.isatty(descriptor)]

    told = asyncio.Event()

    def on_signal() -> None:
        if not terminals or any(os.isatty(descriptor) for descriptor in terminals):
            reread()
        elif not told.is_set():
            told.set()
            leave()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_signal)


async def _reread(wanted: asyncio.Event, configuration: Configuration, logs: Logs) -> None:
    while True:
        await wanted.wait()
        wanted.clear()
        await asyncio.to_thread(configuration.reread, logs)


async def _serve(options: NodeOptions, configuration: Configuration, logs: Logs) -> int:
    from node.remote.node import DRAIN, Node

    settings = configuration.settings
    _allow_descriptors(settings.max_connections + OTHER_DESCRIPTORS)
    sys.setswitchinterval(SWITCH)
    node = Node(options, settings)
    logs.names = node.names
    told, rest = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if told.is_set():
            os._exit(128 + number)
        told.set()
        if number == signal.SIGUSR1:
            rest.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        loop.add_signal_handler(number, on_signal, number)
    hang_up = asyncio.Event()
    on_hang_up(hang_up.set, lambda: on_signal(signal.SIGHUP))
    rereading = loop.create_task(_reread(hang_up, configuration, logs))
    giving_back = loop.create_task(keep_giving_back())
    Event.START.tell(log, "version %s, process %d, data in %s", __version__, os.getpid(), options.data)
    starting = loop.create_task(node.start())
    leaving = loop.create_task(told.wait())
    await asyncio.wait({starting, leaving}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        Event.STOPPED.tell(log, "told to before it was ready")
        return 0
    starting.result()
    _relieve_collector()
    Event.READY.tell(log, "%s id=%s", node.address, node.id.hex)
    print(f"ready {node.address} id={node.id.hex}", flush=True)
    if node.invitation:
        print(f"Type this on the next machine, within {settings.token / 3600:g} hours; `ring token` makes more:")
        print(join_line(node.address, node.invitation), flush=True)
    failing = loop.create_task(node.stopped())
    asked = loop.create_task(node.told_to_leave())
    await asyncio.wait({leaving, failing, asked}, return_when=asyncio.FIRST_COMPLETED)
    if failing.done():
        await node.close()
        failing.result()
    for waiting in (failing, asked, rereading, giving_back):
        waiting.cancel()
    if rest.is_set():
        await node.close(drain=DRAIN)
    else:
        await node.leave()
    Event.STOPPED.tell(log, "resting" if rest.is_set() else "left")
    return 0


def _allow_descriptors(wanted: int) -> None:
    """As many open files as that, or as near as the hard limit lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _relieve_collector() -> None:
    """What is there now stays: looking through it for cycles again and again is an eighth of the work of a batch."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, 10, 10)


def join_line(address: Address, token: str) -> str:
    """What makes another machine a node of the ring."""
    return f"python server.py {address.host} {address.port} --token {token}"


async def stay(servers: Servers) -> int:
    """Keep several nodes until the first signal; a second one ends them at once."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    told: list[int] = []

    def leave(number: int) -> None:
        told.append(number)
        servers.resting = number == signal.SIGUSR1
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        loop.add_signal_handler(number, leave, number)
    on_hang_up(lambda: servers.tell(signal.SIGHUP), lambda: leave(signal.SIGTERM))
    try:
        return await servers.run()
    except asyncio.CancelledError:
        if not told:
            raise
        return 0 if len(told) == 1 else 128 + told[-1]
