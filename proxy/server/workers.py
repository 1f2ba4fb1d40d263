"""The supervisor: owns the listening sockets, and keeps worker processes that accept from them.

Workers are started anew (exec, no fork of a running loop) and get the sockets and one end of a control wire by inheritance.
All accept from the same queue, so that what waits there is lost with none of them.

- *One dies*: another is started at once. One that dies again and again as soon as it is there is waited for, longer each
  time.
- *Rolling restart* (SIGUSR2): a whole new generation is started, from what is installed now. When all of it is ready, the
  old one is told to retire. If one of the new ones cannot start, all of them go and the old ones stay.
- *SIGHUP*: all reload. *SIGTERM*, *SIGINT*: all drain; a second one ends their patience.

Workers are told by the wire and not by signals, because a signal comes twice where a service manager or a terminal sends it
to the whole group, and twice means at once. A worker whose supervisor is gone drains and ends. What this
process cannot see, a worker that lives and answers nobody, is not handled.
"""

import asyncio
import itertools
import json
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from proxy.ports import ExchangeLog
from proxy.server.control import COUNT_S, Wire
from proxy.server.notify import READY, STOPPING, notify
from proxy.telemetry.metrics import Snapshot, counters, from_bytes, merge, to_bytes

READY_S: Final = 30.0
SETTLED_S: Final = 5.0  # one that lived so long did not die of its start
AGAIN_S: Final = 0.5  # the first pause between starts, which doubles
AGAIN_MAX_S: Final = 30.0
LAST_S: Final = 15.0  # after the drain, for what it takes to close; then they are killed
NOT_STARTED: Final = 71  # EX_OSERR


def pause_s(quick_deaths: int) -> float:
    """How long to wait before the next start, after so many deaths in a row that came at once."""
    return 0.0 if quick_deaths <= 1 else min(AGAIN_S * 2.0 ** min(quick_deaths - 2, 10), AGAIN_MAX_S)


def told(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


@dataclass(slots=True)
class _Process:
    """One worker that runs."""

    process: asyncio.subprocess.Process
    wire: Wire
    ready: bool = False
    counted: Snapshot = field(default_factory=dict)  # as it said last
    listening: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Place:
    """One worker's place in a generation; who has it may change. ``over``: it is not filled again."""

    number: int
    generation: int
    current: _Process | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    order: str = ""  # what who has it was told last, for one that is only starting
    task: asyncio.Task[int] | None = None
    was_ready: bool = False
    restarts: int = 0


@dataclass(slots=True)
class _Question:
    """What have you counted? To all workers."""

    waiting: set[int]  # processes
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """``command``: what a worker is started with, its `--worker` apart. ``sockets``: by what they are for."""

    def __init__(
        self,
        command: Sequence[str],
        sockets: dict[str, socket.socket],
        count: int,
        log: ExchangeLog,
        *,
        drain_s: float,
    ) -> None:
        self._command = tuple(command)
        self._sockets = sockets
        self._count = count
        self._log = log
        self._patience_s = drain_s + LAST_S
        self._places: list[_Place] = []  # of the generation that serves
        self._all: list[_Place] = []  # those that retire or begin, too
        self._generations = itertools.count(1)
        self._numbers = itertools.count(1)
        self._questions: dict[int, _Question] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._gone_counted: Snapshot = {}  # by those that are gone: a counter never falls
        self._stop = asyncio.Event()
        self._rolling: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Until a signal comes. The exit code: 0, or what the first worker could not start with."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._tell_all, "reload")
        loop.add_signal_handler(signal.SIGUSR2, self._roll)
        starting = asyncio.create_task(self._generation())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        code = 0
        if starting.done():
            places, code = starting.result()
            self._places = places
            if places:
                self._log.event("workers: all are ready", workers=len(places))
                notify(READY)
                await stopping
                notify(STOPPING)
        starting.cancel()
        stopping.cancel()
        return await self._end() or code

    # What it is told.

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():
            self._tell_all("hurry")
        self._stop.set()

    def _tell_all(self, word: str) -> None:
        for place in self._all:
            _tell(place, word)

    def _roll(self) -> None:
        if self._stop.is_set() or not self._places or self._rolling is not None:
            self._log.event("workers: no rolling restart now, one is under way or all are ending")
            return
        self._rolling = asyncio.create_task(self._rolled())
        self._rolling.add_done_callback(self._rolled_over)

    async def _rolled(self) -> None:
        self._log.event("workers: rolling restart")
        places, _ = await self._generation()
        if not places:
            self._log.event("workers: rolling restart given up, the old ones go on")
            return
        old, self._places = self._places, places
        for place in old:
            place.over.set()
            _tell(place, "retire")
        self._log.event("workers: the new ones serve, the old ones retire", generation=places[0].generation)

    def _rolled_over(self, task: asyncio.Task[None]) -> None:
        self._rolling = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug("workers", error)

    # Workers.

    async def _generation(self) -> tuple[list[_Place], int]:
        """As many workers as there are to be, once all of them are ready; else none, and what the one failed with."""
        generation = next(self._generations)
        places: list[_Place] = []
        for number in range(1, self._count + 1):
            place = _Place(number, generation)
            places.append(place)
            self._all.append(place)
            place.task = asyncio.create_task(self._keep(place))
            place.task.add_done_callback(partial(self._left, place))
            code = await self._until_ready(place)
            if code is not None:
                for begun in places:
                    begun.over.set()
                    _tell(begun, "drain")
                    _tell(begun, "hurry")
                return [], code
        return places, 0

    async def _until_ready(self, place: _Place) -> int | None:
        """None once it is; else the exit code."""
        assert place.task is not None  # noqa: S101 - just begun
        began = time.monotonic()
        while not place.was_ready:
            if place.task.done():
                return place.task.result() or 1
            if time.monotonic() - began > READY_S:
                self._log.event("worker: not ready in time", worker=place.number, seconds=READY_S)
                return 1
            await asyncio.wait({place.task}, timeout=0.02)
        return None

    async def _keep(self, place: _Place) -> int:
        """Fill the place until it is over; the last exit code. One that fails before it was ever ready is not replaced."""
        quick = 0
        while True:
            began = time.monotonic()
            code = await self._one(place)
            if place.over.is_set() or not place.was_ready:
                return code
            lived_s = time.monotonic() - began
            quick = 0 if lived_s >= SETTLED_S else quick + 1
            wait_s = pause_s(quick)
            place.restarts += 1
            self._log.event(
                "worker died, another is started",
                worker=place.number,
                why=told(code),
                lived_s=round(lived_s, 1),
                after_s=wait_s,
            )
            try:
                async with asyncio.timeout(wait_s):
                    await place.over.wait()
            except TimeoutError:
                continue
            return code

    async def _one(self, place: _Place) -> int:
        """One worker, from its start to its end. The exit code."""
        try:
            process = place.current = await self._start(place)
        except OSError as error:  # no process or no memory is to be had now
            self._log.event("worker cannot be started", worker=place.number, error=error.strerror or str(error))
            return NOT_STARTED
        code = await process.process.wait()
        await self._gone(process)
        place.current = None
        return code

    async def _start(self, place: _Place) -> _Process:
        ours, theirs = socket.socketpair()
        given: dict[str, Any] = {name: one.fileno() for name, one in self._sockets.items()}
        given["control"] = theirs.fileno()
        given["number"] = place.number
        given["announces"] = place.number == place.generation == 1 and not place.was_ready
        descriptors = (theirs.fileno(), *(one.fileno() for one in self._sockets.values()))
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                "--worker",
                json.dumps(given),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=descriptors,
                process_group=0,  # a terminal's Ctrl-C is for the supervisor, who tells them
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        started = _Process(process, await Wire.over(ours))
        started.listening = asyncio.create_task(self._listen(place, started))
        if place.order:
            started.wire.send({"do": place.order})
        return started

    async def _gone(self, process: _Process) -> None:
        """Its last words are read first."""
        if process.listening is not None:
            await asyncio.wait({process.listening}, timeout=COUNT_S)
        self._gone_counted = merge([self._gone_counted, counters(process.counted)])
        for question in self._questions.values():
            _answered(question, process.process.pid)
        process.wire.close()

    def _left(self, place: _Place, task: asyncio.Task[int]) -> None:
        self._all.remove(place)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log.bug("workers", error)
            self._stop.set()

    async def _listen(self, place: _Place, process: _Process) -> None:
        async for message in process.wire.messages():
            match message:
                case {"say": "ready"}:
                    process.ready = place.was_ready = True
                case {"say": "reload"}:
                    for other in self._all:
                        if other is not place:
                            _tell(other, "reload")
                case {"say": "counted", "id": number}:
                    task = asyncio.create_task(self._answer(process, number))
                    self._asking.add(task)
                    task.add_done_callback(self._asking.discard)
                case {"say": "count", "id": number, "counted": counted}:
                    process.counted = from_bytes(counted.encode())
                    question = self._questions.get(number)
                    if question is not None:
                        _answered(question, process.process.pid)
                case _:
                    self._log.event("a worker said what is not understood", worker=place.number)

    async def _answer(self, asker: _Process, number: Any) -> None:
        counted = to_bytes(await self.counted()).decode()
        asker.wire.send({"say": "counted", "id": number, "counted": counted})

    async def counted(self) -> Snapshot:
        """What all workers have counted, those that are gone too. One that is slow to answer: what it said last."""
        own = next(self._numbers)
        asked = [place.current for place in self._all if place.current is not None and place.current.ready]
        question = self._questions[own] = _Question({one.process.pid for one in asked})
        try:
            for one in asked:
                one.wire.send({"do": "count", "id": own})
            async with asyncio.timeout(COUNT_S):
                while question.waiting:
                    await question.done.wait()
        except TimeoutError:
            self._log.event("workers: some did not answer in time", pids=sorted(question.waiting))
        finally:
            del self._questions[own]
        there = [place.current.counted for place in self._all if place.current is not None]
        return merge([self._gone_counted, *there])

    # The end.

    async def _end(self) -> int:
        """Let all drain; the exit code is 0 unless one had to be killed, or failed."""
        if self._rolling is not None:
            self._rolling.cancel()
        for one in self._sockets.values():
            one.close()  # the workers' are theirs to close, after their grace
        for place in self._all:
            place.over.set()
            if place.order != "retire":
                _tell(place, "drain")
        tasks = {place.task for place in self._all if place.task is not None}
        if not tasks:
            return 0
        done, late = await asyncio.wait(tasks, timeout=self._patience_s)
        for place in list(self._all):
            if place.current is not None:
                self._log.event("worker did not end in time and is killed", worker=place.number)
                place.current.process.kill()
        if late:
            await asyncio.wait(late, timeout=LAST_S)
        return 1 if late or any(not task.cancelled() and task.exception() for task in done) else 0


def _tell(place: _Place, word: str) -> None:
    if word in ("drain", "retire"):
        place.order = word
    if place.current is not None:
        place.current.wire.send({"do": word})


def _answered(question: _Question, pid: int) -> None:
    question.waiting.discard(pid)
    if not question.waiting:
        question.done.set()
