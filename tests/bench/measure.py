"""The rounds: every figure is taken from all gateways in turn, so that noise hits them alike."""

import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from .gateways import KEPT, BenchError, Gateway, GatewayKind, child, log_tail, running, running_upstream
from .load import ClosedLoopJob, PacedJob

FILES_WANTED: Final = 8192  # a gateway holds two sockets a stream, nginx some more
WARM_UP_S: Final = 0.2
CONTENTS: Final = 100
EVENTS: Final = CONTENTS + 3  # the reference stream: role, contents, finish, [DONE]
MEBIBYTE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Pace:
    """``streams`` streams of ``contents`` contents, one every ``interval_ms``, opened over ``ramp_s``."""

    streams: int
    contents: int
    interval_ms: int
    ramp_s: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: the defaults take two minutes for relay and Penstock, under four with the others."""

    starts: int = 3
    idle_after_s: float = 1.0
    rounds: int = 7
    round_s: float = 0.9
    brisk: Pace = Pace(streams=100, contents=80, interval_ms=40, ramp_s=1.0, rounds=2)
    many: Pace = Pace(streams=1000, contents=25, interval_ms=200, ramp_s=2.0, rounds=2)


QUICK: Final = Plan(
    starts=1,
    rounds=3,
    round_s=0.4,
    brisk=Pace(streams=100, contents=40, interval_ms=40, ramp_s=0.4, rounds=1),
    many=Pace(streams=1000, contents=8, interval_ms=200, ramp_s=1.2, rounds=1),
)


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """A figure of CPU a request: which load it is taken under."""

    figure: str
    upstream_name: str
    connections: int
    events: int = 0


CLOSED_LOOPS: Final = (
    ClosedLoop("json_16_cpu_us", "json", connections=16),
    ClosedLoop("json_1_cpu_us", "json", connections=1),
    ClosedLoop("stream_cpu_us", f"events:{CONTENTS}", connections=16, events=EVENTS),
)


@dataclass(slots=True)
class Samples:
    """What was measured: figure, gateway, one value a round (in the same order for all gateways)."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def add(self, figure: str, gateway_name: str, value: float) -> None:
        self.values[figure][gateway_name].append(value)


class Load:
    """The load process: one job at a time."""

    def __init__(self, popen: subprocess.Popen[str], log: Path) -> None:
        assert popen.stdin is not None
        assert popen.stdout is not None
        self._stdin, self._stdout, self._log = popen.stdin, popen.stdout, log

    def run(
        self, gateway: Gateway, job: ClosedLoopJob | PacedJob, while_open: Callable[[int], None] | None = None
    ) -> dict[str, Any]:
        """The result's fields; ``while_open`` gets the events so far whenever the load says all streams are open."""
        print(json.dumps(asdict(job)), file=self._stdin, flush=True)
        for line in self._stdout:
            answer: dict[str, Any] = json.loads(line)
            if "failure" in answer:
                raise BenchError(
                    f"{gateway.name} failed under {job}: {answer['failure']}; its log ends:\n{log_tail(gateway.log)}"
                )
            if "events_so_far" not in answer:
                return answer
            if while_open is not None:
                while_open(answer["events_so_far"])
        raise BenchError(f"the load process has ended; its log ends:\n{log_tail(self._log)}")


@contextlib.contextmanager
def running_load(directory: Path) -> Iterator[Load]:
    log = directory / "load.log"
    with child((sys.executable, "-m", "tests.bench.load"), log, {}, pipes=True) as popen:
        yield Load(popen, log)


def raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def measure(kinds: Sequence[GatewayKind], plan: Plan, directory: Path, say: Callable[[str], None]) -> Samples:
    """All figures of these gateways; ``directory`` is empty and takes their configurations, data and logs.

    *Errors*: BenchError where a gateway does not start, ends early or answers wrongly.
    """
    raise_file_limit()
    samples = Samples()
    with running_upstream(directory) as direct, running_load(directory) as load:
        run = Run(kinds, plan, directory, samples, direct, load, say)
        run.starts()
        with contextlib.ExitStack() as gateways:
            started = [gateways.enter_context(run.start(kind)) for kind in kinds]
            run.closed_loops(started)
            run.kept_answers(started)
            run.brisk_streams(started)
        run.many_streams()
    return samples


@dataclass(frozen=True, slots=True)
class Look:
    """A gateway at one moment of a paced load."""

    events: int
    cpu_s: float
    rss_bytes: int


def look_at(gateway: Gateway, events: int) -> Look:
    return Look(events, gateway.cpu_s(), gateway.rss_bytes())


@dataclass(slots=True)
class Run:
    kinds: Sequence[GatewayKind]
    plan: Plan
    directory: Path
    samples: Samples
    direct: Gateway
    load: Load
    say: Callable[[str], None]
    spawned: int = 0

    def start(self, kind: GatewayKind) -> contextlib.AbstractContextManager[Gateway]:
        self.spawned += 1
        return running(kind, self.direct.port, self.directory / f"{self.spawned}-{kind.executable.rpartition('/')[2]}")

    def starts(self) -> None:
        for round_index in range(self.plan.starts):
            self.say(f"start-up, round {round_index + 1} of {self.plan.starts}")
            for kind in _in_turn(self.kinds, round_index):
                with self.start(kind) as gateway:
                    self.samples.add("first_answer_ms", kind.name, gateway.first_answer_s * 1e3)
                    time.sleep(self.plan.idle_after_s)
                    self.samples.add("idle_rss_mib", kind.name, gateway.rss_bytes() / MEBIBYTE)

    def closed_loops(self, gateways: Sequence[Gateway]) -> None:
        for gateway in gateways:
            for loop in CLOSED_LOOPS:
                self._closed_loop(gateway, loop, WARM_UP_S)
        for round_index in range(self.plan.rounds):
            self.say(f"CPU a request, round {round_index + 1} of {self.plan.rounds}")
            for loop in CLOSED_LOOPS:
                for gateway in _in_turn(gateways, round_index):
                    cpu_s = self._closed_loop(gateway, loop, self.plan.round_s)
                    self.samples.add(loop.figure, gateway.name, cpu_s * 1e6)

    def _closed_loop(self, gateway: Gateway, loop: ClosedLoop, duration_s: float) -> float:
        """CPU seconds a request."""
        job = ClosedLoopJob(
            gateway.port, gateway.target_prefix + loop.upstream_name, loop.connections, duration_s, loop.events
        )
        return self._timed(gateway, job)[0]

    def _timed(self, gateway: Gateway, job: ClosedLoopJob) -> tuple[float, float]:
        """CPU seconds a request, and the median milliseconds to an answer's first byte."""
        before_s = gateway.cpu_s()
        result = self.load.run(gateway, job)
        return (gateway.cpu_s() - before_s) / result["requests"], result["first_p50_ms"]

    def kept_answers(self, gateways: Sequence[Gateway]) -> None:
        """Hits beside misses of the same route, in turn."""
        keeping = [gateway for gateway in gateways if gateway.keeps]
        if not keeping:
            self.say(
                "no gateway here is told to keep answers (the configuration has no `cache`): hits are not measured"
            )
        for gateway in keeping:
            for round_index in range(self.plan.rounds):
                self.say(f"kept answers, round {round_index + 1} of {self.plan.rounds}")
                miss, hit = (
                    ClosedLoopJob(gateway.port, KEPT, 16, self.plan.round_s, fresh=fresh) for fresh in (True, False)
                )
                miss_s, hit_s = self._timed(gateway, miss)[0], self._timed(gateway, hit)[0]
                self.samples.add("miss_cpu_us", gateway.name, miss_s * 1e6)
                self.samples.add("hit_cpu_us", gateway.name, hit_s * 1e6)
                self.samples.add("hit_share", gateway.name, hit_s / miss_s)
                alone = ClosedLoopJob(gateway.port, KEPT, 1, self.plan.round_s)
                self.samples.add("hit_first_p50_ms", gateway.name, self._timed(gateway, alone)[1])

    def brisk_streams(self, gateways: Sequence[Gateway]) -> None:
        pace = self.plan.brisk
        for round_index in range(pace.rounds):
            self.say(f"{pace.streams} paced streams, round {round_index + 1} of {pace.rounds}")
            for gateway in _in_turn([self.direct, *gateways], round_index):
                self._paced(gateway, pace, "brisk")
            self._subtract_direct("brisk", gateways)

    def many_streams(self) -> None:
        """Each round has a fresh process: memory that earlier load had left behind would hide what a stream takes."""
        pace = self.plan.many
        kinds = [kind for kind in self.kinds if kind.streams_max >= pace.streams]
        for round_index in range(pace.rounds):
            self.say(f"{pace.streams} paced streams, round {round_index + 1} of {pace.rounds}")
            self._paced(self.direct, pace, "many")
            with contextlib.ExitStack() as stack:
                gateways = [stack.enter_context(self.start(kind)) for kind in kinds]
                for gateway in _in_turn(gateways, round_index):
                    for loop in CLOSED_LOOPS:
                        self._closed_loop(gateway, loop, WARM_UP_S)
                    self._paced(gateway, pace, "many")
                self._subtract_direct("many", gateways)

    def _paced(self, gateway: Gateway, pace: Pace, load_name: str) -> None:
        """Adds the times as they are, under names that ``_subtract_direct`` reads, and what only a process has."""
        upstream_name = f"paced:{pace.contents}:{pace.interval_ms}"
        duration_s = pace.contents * pace.interval_ms / 1e3
        job = PacedJob(
            gateway.port, gateway.target_prefix + upstream_name, pace.streams, pace.contents, duration_s, pace.ramp_s
        )
        if gateway.process is None:
            result = self.load.run(gateway, job)
        else:
            rss_before, looks = gateway.rss_bytes(), list[Look]()
            result = self.load.run(gateway, job, lambda events: looks.append(look_at(gateway, events)))
            after = look_at(gateway, result["events"])
            if not looks:
                self.say(
                    f"{gateway.name} never had all {pace.streams} streams open at once: no CPU or RSS of this round"
                )
            else:
                cpu_s = (after.cpu_s - looks[0].cpu_s) / (after.events - looks[0].events)
                self.samples.add(f"{load_name}_event_cpu_us", gateway.name, cpu_s * 1e6)
                rss_bytes = max(look.rss_bytes for look in looks) - rss_before
                self.samples.add(f"{load_name}_stream_rss_kib", gateway.name, rss_bytes / 1024 / pace.streams)
        for time_name in TIME_NAMES:
            self.samples.add(f"{load_name}_{time_name}_total", gateway.name, result[time_name])

    def _subtract_direct(self, load_name: str, gateways: Sequence[Gateway]) -> None:
        for time_name in TIME_NAMES:
            totals = self.samples.values[f"{load_name}_{time_name}_total"]
            for gateway in gateways:
                added_ms = totals[gateway.name][-1] - totals[self.direct.name][-1]
                self.samples.add(f"{load_name}_{time_name}", gateway.name, added_ms)


Each = TypeVar("Each")
TIME_NAMES: Final = ("first_p50_ms", "event_p50_ms", "event_p99_ms")


def _in_turn(items: Sequence[Each], round_index: int) -> Sequence[Each]:
    """Every other round the other way round, so that none always follows the same one."""
    return items if round_index % 2 == 0 else items[::-1]


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles, in parts of the median."""
    if len(values) < 2:
        return 0.0
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return (upper - lower) / 2 / abs(median) if median else 0.0
