"""A steady mix of everything: what is asked for, by whom, how often, and what must come of it."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from tests.edge.doorway import ask
from tests.gateway import CHAT, Answer, Connection

KEPT_QUESTIONS: Final = 8  # that are asked again and again, where answers are kept
CLIENTS: Final = 16
KNOWN_S: Final = 5.0  # until every process knows of a key
GONE: Final = "gone"  # the client left

# ``{simulator}`` is its port. Prices are such that a long question to `dear` costs more than its tier, and budgets such that
# `poor` has none. Two variants, for reloads: what runs goes on by the one that it began with.
SIMULATED: Final = """
providers:
  sim:
    like: vllm
    base_url: "http://127.0.0.1:{simulator}/v1"
    price: {"*": {input: 0.15, output: 0.60}}
"""
CONFIG: Final = (
    SIMULATED
    + """
access: {mode: keys}
budgets: {daily: 1000000, monthly: 9000000}
limits: {rps: 10000, burst: 10000, concurrency: 10000}
defaults:
  timeouts: {connect: 5s, first_event: 20s, idle: 20s, silent: 30s, total: 60s}
  breaker: {cooldown: 2s}
routes:
  plain: {tiers: [sim/plain]}
  kept: {tiers: [sim/plain], cache: {ttl: 20s}}
  saved: {tiers: [sim/503, sim/plain]}
  dear: {cost_tier: ultra_economy, tiers: [{target: sim/dear, price: {input: 1, output: 0.2}}]}
"""
)
VARIANT: Final = CONFIG + "  more: {tiers: [sim/plain]}\n"


@dataclass(frozen=True, slots=True)
class Kind:
    """``statuses``: those that may come of it. A breaker that is open is 503, and whoever leaves has seen 200.

    ``ends``: how the answer may end, as `Answer.end` has it, where its status is 200.
    """

    name: str
    weight: int
    model: str
    statuses: frozenset[int]
    stream: bool = False
    who: str = "user"
    ends: str = "whole"
    leaves: bool = False


def _kind(name: str, weight: int, model: str, *statuses: int, **more: object) -> Kind:
    return Kind(name, weight, model, frozenset(statuses), **more)  # type: ignore[arg-type] # handed through as they are


UNKNOWN: Final = (401, 429)  # a wrong key; the second when there were many in a minute

KINDS: Final = (
    _kind("JSON", 25, "plain", 200),
    _kind("stream", 20, "sim/events:30", 200, stream=True),
    _kind("slow stream", 5, "sim/paced:10:100ms", 200, stream=True),
    _kind("cache, asked again", 15, "kept", 200),
    _kind("cache, as a stream", 5, "kept", 200, stream=True),
    _kind("cache, new", 5, "kept", 200),
    _kind("fell back", 5, "saved", 200),
    _kind("throttled", 3, "sim/429:1", 429),
    _kind("failed", 3, "sim/500", 502, 503),
    _kind("cut", 4, "sim/cut:5", 200, 503, stream=True, ends="eof"),
    _kind("cost tier", 3, "dear", 402),
    _kind("no budget", 3, "plain", 402, who="poor"),
    _kind("limit", 3, "plain", 200, 429, who="slow"),
    _kind("no key", 2, "plain", *UNKNOWN, who="nobody"),
    _kind("left", 6, "sim/paced:200:50ms", 200, stream=True, leaves=True),
)


@dataclass(slots=True)
class Asked:
    """What came of it. ``answered``: the ids of what must be in the ledger; ``unknown``: how many came with a wrong key."""

    answered: list[str] = field(default_factory=list)
    unknown: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return len(self.answered) + self.unknown

    def note(self, kind: Kind, answer: Answer) -> None:
        end = GONE if kind.leaves else answer.end
        self.seen[f"{kind.name}: {answer.status}{'' if end == 'whole' else f' {end}'}"] += 1
        wanted = kind.ends if answer.status == 200 else "whole"
        if answer.status not in kind.statuses or (end != wanted and not kind.leaves):
            self.wrong.append(f"{kind.name}: {answer.status} {answer.end} {answer.body[-300:]!r}")
        self.count(answer, is_known=kind.who != "nobody")

    def count(self, answer: Answer, *, is_known: bool) -> None:
        if not is_known:
            self.unknown += 1
        elif answer.status:
            self.answered.append(answer.headers["x-request-id"])


class Mix:
    """Clients that ask at a steady rate, together. ``keys``: of `Kind.who`, what is shown."""

    def __init__(self, port: int, keys: Mapping[str, str], rate: float, seed: int) -> None:
        self._port = port
        self._keys = keys
        self._pause_s = CLIENTS / rate
        self._rng = random.Random(seed)
        self._going = True
        self._number = 0
        self.asked = Asked()

    async def during(self, seconds: float) -> Asked:
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._client(number))
            await asyncio.sleep(seconds)
            self._going = False
        return self.asked

    async def _client(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._pause_s * number / CLIENTS
        connection: Connection | None = None
        while self._going:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due, loop.time() - self._pause_s) + self._pause_s  # who is late by more does not catch up
            connection = await self._ask(connection or await Connection.open(self._port))
        if connection is not None:
            await connection.close()

    async def _ask(self, connection: Connection) -> Connection | None:
        """The connection, if it can be used again."""
        (kind,) = self._rng.choices(KINDS, [one.weight for one in KINDS])
        connection.post(CHAT, self._body(kind), {"authorization": f"Bearer {self._keys[kind.who]}"})
        if kind.leaves:
            await connection.until(b'"content":"')
            answer = await connection.answer(within_s=self._rng.uniform(0, 0.3))
            connection.reset()
            self.asked.note(kind, answer)
            return None
        answer = await connection.answer()
        self.asked.note(kind, answer)
        if answer.end == "whole" and answer.headers.get("connection") != "close":
            return connection
        await connection.close()
        return None

    def _body(self, kind: Kind) -> bytes:
        self._number += 1
        number = self._number % KEPT_QUESTIONS if "again" in kind.name or "as a stream" in kind.name else self._number
        question = f"question {number} " + "and more " * (40 if kind.model == "dear" else self._number % 40)
        if kind.model == "kept" and number < KEPT_QUESTIONS:
            question = f"question {number}"
        return orjson.dumps(
            {"model": kind.model, "stream": kind.stream, "messages": [{"role": "user", "content": question}]}
        )


async def known(port: int, key: str) -> int:
    """Waits until all who answer know of a key. How many did not, on the way. Errors: TimeoutError."""
    well = refused = 0
    async with asyncio.timeout(KNOWN_S):
        while well < 8:
            answer = await ask(port, "/v1/models", {"authorization": f"Bearer {key}"})
            well, refused = (0, refused + 1) if answer.status in UNKNOWN else (well + 1, refused)
            await asyncio.sleep(0.05)
    return refused
