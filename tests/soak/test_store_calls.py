"""What a request asks of Redis, and what stays there: the numbers of `docs/scaling.md`, which are to be planned with.

`make test ARGS="-s tests/soak/test_store_calls.py"` prints them.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

import orjson
import pytest

from tests.conftest import Start
from tests.gateway import CHAT, Connection, Gateway, port_of
from tests.soak.mix import SIMULATED
from tests.valkey import Valkey

REQUESTS: Final = 40
# What goes on without requests in the seconds of a run, renewals and looks; and a call that had nobody to ask.
OTHERS: Final = 10
COMMANDS_A_SCRIPT: Final = 15
RUNNING: Final = 200  # more than Redis packs densely
RUNNING_BYTES: Final = 600
MINUTE_S: Final = 60
LIMITS: Final = "limits: {rps: 100000, tpm: 900000000, concurrency: 1000}\n"
BUDGETS: Final = "budgets: {daily: 1000000}\n"
CACHE: Final = "    cache: {ttl: 1h}\n"


@dataclass(frozen=True, slots=True)
class Case:
    """``scripts``: calls of a request, each a round trip; ``commands``: what they do in Redis, at most."""

    name: str
    config: str
    scripts: int
    commands: int
    cache: bool = False
    asked: str = "new"
    stream: bool = False


CASES: Final = (
    Case("nothing", "", 0, 0),
    Case("limits", LIMITS, 2, 15),
    Case("one budget", BUDGETS, 2, 22),
    Case("cache, a miss", "", 4, 23, cache=True),
    Case("cache, a hit", "", 1, 3, cache=True, asked="again"),
    Case("limits, budget, a miss", LIMITS + BUDGETS, 8, 60, cache=True),
    Case("limits, budget, a hit", LIMITS + BUDGETS, 3, 18, cache=True, asked="again"),
    Case("limits, budget, a stream", LIMITS + BUDGETS, 4, 37, stream=True),
)


def commands(valkey: Valkey) -> dict[str, int]:
    """Since the last reset, by name. A script is one, and each command in it another."""
    found: dict[str, int] = {}
    for line in valkey.command("INFO", "commandstats").splitlines():
        name, _, rest = line.partition(":calls=")
        if rest:
            found[name.removeprefix("cmdstat_")] = int(rest.partition(",")[0])
    return found


async def asked(gateway: Gateway, case: Case, number: int) -> None:
    question = "again" if case.asked == "again" else f"question {number}"
    answer = await gateway.ask("plain", stream=case.stream, messages=[{"role": "user", "content": question}])
    assert (answer.status, answer.end) == (200, "whole")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_a_request_asks_of_redis(case: Case, start: Start, upstream_url: str, own_valkey: Valkey) -> None:
    cached = CACHE if case.cache else ""
    config = SIMULATED.replace("{simulator}", str(port_of(upstream_url))) + case.config
    gateway = await start(config + "routes:\n  plain:\n    tiers: [sim/plain]\n" + cached, redis_url=own_valkey.url)
    for number in range(5):
        await asked(gateway, case, -number)
    await asyncio.sleep(0.3)
    used = memory(own_valkey)
    own_valkey.send("CONFIG", "RESETSTAT")
    for number in range(REQUESTS):
        await asked(gateway, case, number)
    await asyncio.sleep(0.3)
    seen = commands(own_valkey)
    scripts = seen.pop("evalsha", 0)
    inside = sum(seen.values())
    grown = (memory(own_valkey) - used) / REQUESTS
    print(f"\n{case.name}: a request {scripts / REQUESTS:.1f} scripts, {inside / REQUESTS:.1f} commands", end="")
    print(f", {grown:.0f} bytes stay" if case.cache and case.asked == "new" else "")
    assert abs(scripts - case.scripts * REQUESTS) <= OTHERS, seen
    assert inside <= case.commands * REQUESTS + OTHERS * COMMANDS_A_SCRIPT, seen


async def test_what_a_running_request_holds(start: Start, upstream_url: str, own_valkey: Valkey) -> None:
    """Bytes in Redis: of a subject that is limited, of a book, and of what runs in both."""
    config = SIMULATED.replace("{simulator}", str(port_of(upstream_url))) + LIMITS + BUDGETS
    gateway = await start(config, redis_url=own_valkey.url)
    await gateway.ask("sim/plain")
    alone = sizes(own_valkey)
    running = [asyncio.create_task(gateway.ask("sim/delay:2s", stream=True)) for _ in range(RUNNING)]
    async with asyncio.timeout(10):
        while held(own_valkey) < 2 * RUNNING:
            await asyncio.sleep(0.05)
    more = {key: (size - alone.get(key, 0)) / RUNNING for key, size in sizes(own_valkey).items()}
    print(
        "\n" + "".join(f"  {alone.get(key, 0):5} bytes, and {one:.0f} a request: {key}\n" for key, one in more.items())
    )
    assert {(await one).status for one in running} == {200}
    assert sum(alone.values()) < 2_000
    assert sum(more.values()) < RUNNING_BYTES


def memory(valkey: Valkey) -> int:
    """What all keys take, with what is beside them, in bytes."""
    return sum(sizes(valkey).values())


def sizes(valkey: Valkey) -> dict[str, int]:
    return {key: valkey.command("MEMORY", "USAGE", key, "SAMPLES", 0) or 0 for key in valkey.command("KEYS", "*")}


def held(valkey: Valkey) -> int:
    return sum(valkey.command("ZCARD", key) for key in valkey.command("KEYS", "*|leases"))


@pytest.mark.soak
async def test_what_is_asked_of_redis_without_a_request(start: Start, upstream_url: str, own_valkey: Valkey) -> None:
    """By a process that has nothing to do, and for streams that only go on."""
    config = SIMULATED.replace("{simulator}", str(port_of(upstream_url))) + LIMITS + BUDGETS
    gateway = await start(config, redis_url=own_valkey.url)
    await gateway.ask("sim/plain")
    scripts, inside = await in_a_minute(own_valkey)
    print(f"\nnothing runs: {scripts} scripts a minute, {inside} commands")
    assert scripts <= 60
    body = orjson.dumps({"model": f"sim/paced:{MINUTE_S + 30}:1s", "stream": True, "messages": []})
    running = [await Connection.open(gateway.port) for _ in range(RUNNING)]
    for one in running:
        one.post(CHAT, body)
    await asyncio.gather(*(one.until(b'"content":"') for one in running))
    await asyncio.sleep(2)
    more_scripts, more_inside = await in_a_minute(own_valkey)
    each = (more_inside - inside) / RUNNING
    print(f"{RUNNING} streams run: {more_scripts} scripts a minute, {each:.1f} commands more for each stream")
    assert more_scripts <= 90, "what runs is renewed together"
    assert each <= 60
    for one in running:
        one.reset()


async def in_a_minute(valkey: Valkey) -> tuple[int, int]:
    valkey.send("CONFIG", "RESETSTAT")
    await asyncio.sleep(MINUTE_S)
    seen = commands(valkey)
    return seen.pop("evalsha", 0), sum(seen.values())
