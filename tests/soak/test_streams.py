"""10,000 streams at once on two workers, under a budget and a limit that Redis keeps: what each of them weighs.

The streams are slow, so that what is measured is that they are there. What their events cost is `make bench`'s.
"""

import asyncio
import json
import resource
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any, Final

import pytest

from proxy.core.ledger import LedgerRow
from proxy.ports import Ledger
from tests.bench.gateways import ROOT
from tests.server.crash import open_ledger
from tests.soak.left import nothing_is_left
from tests.soak.served import Served, served
from tests.valkey import Valkey

STREAM_KIB: Final = 64.0
DESCRIPTORS: Final = 16_000  # a process: two for a stream, and streams are not shared out evenly
WARM: Final = 200  # streams, before what there is already is weighed
CONFIG: Final = """
providers:
  sim:
    like: vllm
    base_url: "http://127.0.0.1:{simulator}/v1"
    price: {"*": {input: 0.15, output: 0.60}}
budgets: {daily: 1000000}
limits: {concurrency: 100000}
defaults: {timeouts: {connect: 30s, first_event: 300s, idle: 120s, silent: 300s, total: 1800s}}
"""
LEDGER_S: Final = 60.0


class Crowd:
    """Streams of two client processes, each from an address of its own."""

    def __init__(self, processes: list[Process]) -> None:
        self._processes = processes
        self._told: list[dict[str, Any]] = [{} for _ in processes]
        self._listening = [asyncio.create_task(self._listen(number)) for number in range(len(processes))]

    @classmethod
    async def of(cls, port: int, streams: int, model: str, events: int) -> "Crowd":
        words = (sys.executable, "-m", "tests.soak.clients", str(port))
        rest = (str(streams // 2), model, str(events))
        addresses = ("127.0.0.2", "127.0.0.3")
        return cls(
            [await asyncio.create_subprocess_exec(*words, one, *rest, stdout=PIPE, cwd=ROOT) for one in addresses]
        )

    async def _listen(self, number: int) -> None:
        output = self._processes[number].stdout
        assert output is not None
        while line := await output.readline():
            self._told[number] = json.loads(line)

    def sum(self, name: str) -> int:
        return sum(one.get(name, 0) for one in self._told)

    @property
    def failures(self) -> list[str]:
        return [f"{count} x {why}" for one in self._told for why, count in one.get("failures", {}).items()]

    @property
    def opened_s(self) -> float:
        return float(max(one.get("opened_s", 0.0) for one in self._told))

    async def all_open(self, streams: int, within_s: float) -> None:
        until = time.monotonic() + within_s
        while self.sum("open") < streams:
            assert not self.failures, self.failures
            assert time.monotonic() < until, f"{self.sum('open')} of {streams} are open after {within_s:.0f} s"
            assert self.sum("whole") == 0, "some were over before all were open"
            await asyncio.sleep(0.2)

    async def over(self) -> None:
        await asyncio.gather(*self._listening)
        assert [await one.wait() for one in self._processes] == [0] * len(self._processes)
        assert all(one["over"] for one in self._told)

    def kill(self) -> None:
        for one in self._processes:
            if one.returncode is None:
                one.kill()


async def held_open(server: Served, valkey: Valkey, streams: int, events: int, pace_s: int) -> None:
    """All of it, and what it is held against; prints what it weighed."""
    await server.warmed_up("sim/plain")
    warm = await Crowd.of(server.port, WARM, "sim/paced:2:500ms", 2)
    await warm.over()
    assert (warm.failures, warm.sum("whole")) == ([], WARM)
    before = server.weights()
    began_cpu_s = server.cpu_s()
    crowd = await Crowd.of(server.port, streams, f"sim/paced:{events}:{pace_s}s", events)
    try:
        # An event before the first stream's last one, so that the samples below still find all of them.
        await crowd.all_open(streams, (events - 2) * pace_s)
        opened_cpu_s = server.cpu_s()
        reserved = valkey.command("ZCARD", _reservations(valkey))
        print(f"\n{streams} streams are open after {crowd.opened_s:.0f} s, {reserved} are reserved")
        await asyncio.sleep(pace_s)
        most = server.weights()
        assert crowd.sum("open") == streams, "all at once"
        await crowd.over()
    finally:
        crowd.kill()
    assert crowd.failures == []
    assert (crowd.sum("whole"), crowd.sum("events")) == (streams, streams * events)
    assert most.keys() == before.keys(), "no worker died"
    grown = {pid: most[pid].rss - before[pid].rss for pid in before}
    of_stream_kib = sum(grown.values()) / 1024 / streams
    descriptors = [most[pid].descriptors for pid in before]
    print(f"  {of_stream_kib:.1f} KiB a stream: {[f'{one / 2**20:.0f} MiB' for one in grown.values()]}")
    print(f"  descriptors of the workers: {descriptors}")
    print(f"  CPU of the workers to open one: {(opened_cpu_s - began_cpu_s) / streams * 1e3:.2f} ms")
    await nothing_is_left(server, valkey)
    await booked(server, WARM + streams)
    assert "bug" not in server.printed
    if streams >= 10_000:  # of fewer it is what grows anyway that is divided
        assert of_stream_kib <= STREAM_KIB


def _reservations(valkey: Valkey) -> str:
    """The leases of the one book."""
    (key,) = valkey.command("KEYS", "*budgets*|leases")
    assert isinstance(key, str)
    return key


async def booked(server: Served, rows: int) -> None:
    """So many rows come to be in the ledger, each of a request that went well, and no more."""
    ledger = open_ledger(str(server.data / "ledger.sqlite3"))
    try:
        async with asyncio.timeout(LEDGER_S):
            while len(found := await _paced(ledger, rows)) < rows:
                await asyncio.sleep(0.5)
        assert len(found) == rows
        assert {one.outcome for one in found} == {"ok"}
    finally:
        await ledger.close()


async def _paced(ledger: Ledger, rows: int) -> list[LedgerRow]:
    """The rows of streams; there are some more, of the warm-up."""
    every = [one.row for one in await ledger.booked(0, 2 * rows + 1000)]
    return [one for one in every if (one.model or "").startswith("paced")]


async def test_200_streams_on_two_workers(tmp_path: Path, own_valkey: Valkey) -> None:
    with served(tmp_path, CONFIG, own_valkey.url) as server:
        await held_open(server, own_valkey, streams=200, events=4, pace_s=1)


@pytest.mark.soak
async def test_10000_streams_on_two_workers(tmp_path: Path, own_valkey: Valkey) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert most == resource.RLIM_INFINITY or most >= DESCRIPTORS, (
        f"`ulimit -Hn` is {most}, and {DESCRIPTORS} are needed"
    )
    with served(tmp_path, CONFIG, own_valkey.url) as server:
        await held_open(server, own_valkey, streams=10_000, events=40, pace_s=6)
