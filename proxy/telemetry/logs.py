"""One line per exchange: JSON off a terminal, readable on one.

Lines are gathered and handed to a writer thread a few times a second, so that neither the exchange nor the loop ever
waits for a pipe. A reader that does not read costs lines, not requests: beyond `BACKLOG_BYTES_MAX` they are dropped, and
the next line that gets through says how many.
"""

import asyncio
import os
import queue
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

import orjson

from proxy.core import redact
from proxy.telemetry.log_file import LogFile

FLUSH_S: Final = 0.05
UNTOLD_MAX: Final = 16
BACKLOG_BYTES_MAX: Final = 4 * 1024 * 1024
CLOSE_S: Final = 1.0  # how long the last lines may take when the process ends

_COLOURS: Final = {"ok": "32", "refused": "33", "client_cancelled": "33", "partial": "31", "failed": "31"}


class _Stream:
    """A descriptor that somebody else has opened."""

    def __init__(self, stream: TextIO, *, shared: bool) -> None:
        self._descriptor = stream.fileno()
        self._shared = shared

    def write(self, data: bytes) -> None:
        left = data
        while left:
            try:
                left = left[os.write(self._descriptor, left[: self._at_once(left)]) :]
            except BlockingIOError:
                time.sleep(FLUSH_S)  # somebody made the stream non-blocking, and its reader is slow

    def _at_once(self, left: bytes) -> int:
        """How many bytes to write: whole lines that a pipe takes in one piece, where there are others that write to it."""
        if not self._shared or len(left) <= select.PIPE_BUF:
            return len(left)
        whole = left.rfind(b"\n", 0, select.PIPE_BUF) + 1
        return whole or left.find(b"\n") + 1 or len(left)


class Log:
    """Writes to one stream, or to a file. Made in the loop's thread; `close` flushes."""

    def __init__(self, stream: TextIO | LogFile, *, readable: bool | None = None, shared: bool = False) -> None:
        """``shared``: other processes write to the same pipe, so that lines are written whole."""
        if isinstance(stream, LogFile):
            self._sink: LogFile | _Stream = stream
            self._readable = bool(readable)
        else:
            self._sink = _Stream(stream, shared=shared)
            self._readable = stream.isatty() if readable is None else readable
        self._untold: list[tuple[Callable[[], Mapping[str, object]], float]] = []
        self._lines: list[bytes] = []
        self._scheduled = False
        self._dropped = 0
        self._lost = 0  # counted by the writer alone
        self._lost_told = 0
        self._backlog = 0
        self._secrets: set[str] = set()
        self._hidden: tuple[str, ...] = ()  # replaced whole: the writer's thread reads it
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def hide(self, secrets: Iterable[str]) -> None:
        """From now on these stand in no line, nor those that were hidden before; what looks like a key never does."""
        self._secrets.update(secrets)
        self._hidden = redact.written_forms(self._secrets)

    def exchange(self, tell: Callable[[], Mapping[str, object]]) -> None:
        # Many lines are made at once: in the middle of an exchange the same work costs twice as much, on cold caches.
        # But not too many: until then the exchanges that they tell of are kept alive.
        self._untold.append((tell, time.time()))
        if len(self._untold) >= UNTOLD_MAX:
            self._tell()
        self._schedule()

    def event(self, message: str, **facts: object) -> None:
        """Something that happened to the process."""
        record = {"message": message, **facts}
        self._put(_plain(record) if self._readable else _json("info", "event", record))

    def bug(self, exchange_id: str, error: BaseException) -> None:
        trace = redact.text("".join(traceback.format_exception(error)))
        record = {"id": exchange_id, "error": type(error).__name__, "traceback": trace}
        self._put(trace.encode() if self._readable else _json("error", "bug", record))

    def close(self) -> None:
        self._flush()
        self._queue.put(None)
        self._writer.join(CLOSE_S)

    def _tell(self) -> None:
        untold, self._untold = self._untold, []
        self._lines += [_exchange_line(tell, at, readable=self._readable) for tell, at in untold]

    def _put(self, line: bytes) -> None:
        self._lines.append(line)
        self._schedule()

    def _schedule(self) -> None:
        if self._scheduled:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._flush()
            return
        self._scheduled = True
        loop.call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        self._tell()
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        if self._backlog > BACKLOG_BYTES_MAX:
            self._dropped += len(lines)
            return
        lost = self._lost
        if self._dropped or lost > self._lost_told:
            dropped = self._dropped + lost - self._lost_told
            lines.append(_json("warning", "event", {"message": "log lines dropped", "lines": dropped}))
            self._dropped, self._lost_told = 0, lost
        batch = b"\n".join([*lines, b""])
        self._backlog += len(batch)
        self._queue.put(batch)

    def _write(self) -> None:
        while (batch := self._queue.get()) is not None:
            try:
                self._sink.write(
                    redact.body(batch, self._hidden, shapes=True)
                )  # the last step: nothing comes behind it
            except OSError:
                # Nobody reads any more, or the disk is full: what can be told when it can be is how much was lost.
                self._lost += batch.count(b"\n")
            self._backlog -= len(batch)


def stdout(*, shared: bool) -> Log:
    """The log of a process: on its standard output, or nowhere where that is closed."""
    return Log(sys.stdout if sys.stdout is not None else Path(os.devnull).open("w"), shared=shared)


def _exchange_line(tell: Callable[[], Mapping[str, object]], at: float, *, readable: bool) -> bytes:
    record = tell()
    level = "warning" if record["outcome"] in ("failed", "partial") else "info"
    return _readable(record, at) if readable else _json(level, "exchange", record, at)


def _json(level: str, kind: str, record: Mapping[str, object], at: float | None = None) -> bytes:
    at = time.time() if at is None else at
    return orjson.dumps({"ts": round(at, 3), "level": level, "kind": kind, **record}, default=str)


def _readable(record: Mapping[str, Any], at: float) -> bytes:
    """One line for a person: time, outcome, status, what was asked, who answered, how long, tokens, what went wrong."""
    colour = _COLOURS.get(record["outcome"], "0")
    clock = time.strftime("%H:%M:%S", time.localtime(at))
    parts = [
        f"{clock} \x1b[{colour}m{record['status']} {record['outcome']}\x1b[0m",
        f"{record['api']}{' stream' if record['stream'] else ''} {_printable(record['asked'] or '-')}",
    ]
    if record["target"]:
        parts.append(f"-> {_printable(record['target'])}")
    parts.append(f"{record['ms']:.0f} ms")
    if "first_event_ms" in record and record["stream"]:
        parts.append(f"first {record['first_event_ms']:.0f} ms")
    usage = record.get("usage")
    if usage:
        parts.append(f"{usage['input']}+{usage['output']} tokens")
    if record["attempts"] > 1:
        parts.append(f"{record['attempts']} attempts")
    if "message" in record:
        parts.append(f"{record['code']}: {_printable(record['message'])}")
    parts.append(f"\x1b[2m{record['id']}\x1b[0m")
    return "  ".join(parts).encode()


def _plain(record: Mapping[str, object]) -> bytes:
    facts = "  ".join(f"{name}={value}" for name, value in record.items() if name != "message")
    return f"{time.strftime('%H:%M:%S')} {record['message']}  {facts}".rstrip().encode()


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
