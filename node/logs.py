"""Logs: one line for each record, as text or JSON, on standard error or in a file that rotates by size.

Lines are made where something is logged and written by a thread, so that nothing waits for the disk. What is secret is
taken out of every line: tokens, private keys, and what errors that are not ours say, for that may quote a key or value.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import json
import logging
import os
import queue
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from typing import Any

from node.errors import BadUsage, RingError

log = logging.getLogger(__name__)

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
SIZE, FILES = 5_000_000, 5
"""Bytes of a log file at which another is begun, and how many are kept with it."""
WAITING = 10_000
"""Lines that may wait for the disk; those beyond are counted and lost."""
LINGER = 2.0
"""Seconds that a log which cannot be written may hold up a process that ends."""
TOKEN = re.compile(r"ring1\.[\w-]+")
"""Lets a node or a client into a ring."""
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
STANDARD_ERROR = 2
GONE = frozenset(("SSL connection is closed", "socket.send() raised exception."))
"""What asyncio says where something more is sent to a peer that has gone. Peers go as they like: that is no news."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Where a process logs, and what."""

    level: str = "warning"
    format: str = "text"
    file: Path | None = None
    """None: standard error."""
    size: int = SIZE
    files: int = FILES


def without_secrets(text: str) -> str:
    """The text with no token and no private key in it."""
    return PRIVATE_KEY.sub("(a private key)", TOKEN.sub("(a token)", text))


class Lines(logging.Formatter):
    """Records as lines, in one of FORMATS; those in JSON with the names that this process goes by at the time."""

    def __init__(self, kind: str, names: Callable[[], Mapping[str, str]]) -> None:
        super().__init__()
        self._json = kind == "json"
        self._names = names

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter. One line, and after it, as text, where an exception came from."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = getattr(record, "event", None)
        message = without_secrets(record.getMessage())
        error = without_secrets(_explained(record.exc_info[1])) if record.exc_info and record.exc_info[1] else ""
        if self._json:
            line = {"time": time, "level": record.levelname.lower(), "logger": record.name}
            line |= ({"event": event} if event else {}) | {"message": message, **self._names()}
            return json.dumps(line | ({"exception": error} if error else {}))
        message = CONTROL.sub(lambda found: ascii(found[0])[1:-1], message)
        where = f"{record.name} {event}" if event else record.name
        return f"{time} {record.levelname} {where}: {message}" + (f"\n{error}" if error else "")


def _explained(error: BaseException) -> str:
    """An exception and what led to it, innermost last. Only our own and the system's say what was wrong in words."""
    parts = []
    at: BaseException | None = error
    while at is not None:
        told = f": {at}" if isinstance(at, RingError | OSError) else ""
        parts.append("".join(traceback.format_tb(at.__traceback__)) + type(at).__name__ + told)
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\nwhich came after\n".join(parts)


class LogFile(RotatingFileHandler):
    """A file that rotates by size, and goes on in a new one if somebody else moves it away or removes it."""

    def __init__(self, path: Path, size: int = SIZE, files: int = FILES) -> None:
        """Raises BadUsage if it cannot be written."""
        self._fails = self._failed_before = False
        self._opened: Callable[[int], None] = lambda _: None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            super().__init__(path, maxBytes=size, backupCount=files - 1, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise BadUsage(f"cannot write the log {path}: {error.strerror}") from None

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        self._opened(stream.fileno())
        return stream

    def tell_opened(self, opened: Callable[[int], None]) -> None:
        """Call it with the descriptor that the file has now, and with that of each time it is opened anew."""
        self._opened = opened
        if self.stream is not None:
            opened(self.stream.fileno())

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        self._failed_before, self._fails = self._fails, False
        if self.stream is not None and self._is_moved(self.stream.fileno()):
            with contextlib.suppress(OSError):  # what it could not write has been complained of
                self.stream.close()
            self.stream = None  # super opens a new one
        super().emit(record)

    def _is_moved(self, opened: int) -> bool:
        try:
            there, here = os.stat(self.baseFilename), os.fstat(opened)
        except OSError:
            return True
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def handleError(self, record: logging.LogRecord) -> None:
        """A log that cannot be written stops nobody: it is said once on standard error."""
        self._fails = True
        if not self._failed_before:
            print(f"cannot write the log {self.baseFilename}: {sys.exc_info()[1]}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """See logging.Handler."""
        with contextlib.suppress(OSError):  # what it could not write has been complained of
            super().close()


class _HandOver(QueueHandler):
    """Makes lines and gives them to the thread that writes."""

    queue: queue.Queue[Any]
    lost = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        """See QueueHandler."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.lost += 1
            return
        if self.lost and self.queue.qsize() < WAITING / 2:
            lost, self.lost = self.lost, 0
            log.warning("%d lines are missing before this one: they could not be written in time", lost)

    def handleError(self, record: logging.LogRecord) -> None:
        """See logging.Handler. What was to be logged is not quoted."""
        print(f"cannot log what {record.name} says: {type(sys.exc_info()[1]).__name__}", file=sys.stderr, flush=True)


class _Writer(QueueListener):
    """The thread that writes."""

    queue: queue.Queue[Any]

    def stop(self) -> None:
        """Write what is waiting, unless that takes too long."""
        with contextlib.suppress(queue.Full):
            self.queue.put(None, timeout=LINGER)
            if self._thread is not None:
                self._thread.join(LINGER)
        for handler in self.handlers:
            handler.close()


class Logs:
    """All that this process logs, from when it is made until `close`."""

    def __init__(self, options: LogOptions) -> None:
        """Raises BadUsage if the file cannot be written."""
        self.options = options
        self.names: Callable[[], Mapping[str, str]] = dict
        """What this process is called, for lines in JSON."""
        self._crashes = -1
        """A descriptor of its own for what a crash leaves: that of a log that is rotated soon is another file's."""
        self._hand_over = _HandOver(queue.Queue(WAITING))
        self._hand_over.addFilter(lambda record: record.name != "asyncio" or record.msg not in GONE)
        self._writer = self._begin(options, _place(options))
        root = logging.getLogger()
        root.handlers[:] = [self._hand_over]
        atexit.register(self.close)

    def take_crashes(self) -> None:
        """From now on a crash, as by a segmentation fault, leaves the stacks of all threads where lines of text go; on
        standard error if lines are JSON."""
        self._crashes = os.dup(STANDARD_ERROR)
        self._aim(self._writer.handlers[0], self.options)
        faulthandler.enable(self._crashes)

    def _aim(self, place: logging.Handler, options: LogOptions) -> None:
        def aim(descriptor: int) -> None:
            os.dup2(descriptor, self._crashes, inheritable=False)

        if self._crashes >= 0:
            aim(STANDARD_ERROR)
            if isinstance(place, LogFile) and options.format == "text":
                place.tell_opened(aim)

    def change(self, options: LogOptions) -> None:
        """Log otherwise from now on; blocks until what was logged before is written. Raises BadUsage; then nothing is
        changed."""
        if options != self.options:
            place = _place(options)
            self._writer.stop()
            self._writer = self._begin(options, place)
            self.options = options

    def close(self) -> None:
        """Write what is waiting. The end of the process does it too."""
        logging.getLogger().removeHandler(self._hand_over)
        self._writer.stop()

    def _begin(self, options: LogOptions, place: logging.Handler) -> _Writer:
        self._hand_over.setFormatter(Lines(options.format, lambda: self.names()))
        logging.getLogger().setLevel(options.level.upper())
        self._aim(place, options)
        writer = _Writer(self._hand_over.queue, place)
        writer.start()
        return writer


def _place(options: LogOptions) -> logging.Handler:
    """Where lines go. Raises BadUsage."""
    return logging.StreamHandler() if options.file is None else LogFile(options.file, options.size, options.files)
