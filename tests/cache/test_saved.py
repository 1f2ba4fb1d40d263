"""What the cache saves: to the nano-dollar what the repeats would have cost."""

import asyncio
import random

import orjson

from proxy.core.summary import Span, figures
from proxy.simulator.server import Simulator
from tests.cache.test_recall import CONFIG, cached
from tests.conftest import Start
from tests.gateway import CHAT, send

REQUESTS = 500
DISTINCT = 200  # 60 % repeat


async def test_a_workload_that_repeats(start: Start, upstream: Simulator, upstream_url: str) -> None:
    rng = random.Random(60)
    asked = [*range(DISTINCT), *(rng.randrange(DISTINCT) for _ in range(REQUESTS - DISTINCT))]
    rng.shuffle(asked)
    gateway = await start(CONFIG.format(url=upstream_url, model="m"))
    cached(gateway)
    waiting = iter(asked)

    async def worker() -> None:
        for number in waiting:
            question = f"{number} " * (1 + number % 7)
            # The form is the request's own here: an answer in either is kept for both.
            body = {"model": "route", "stream": rng.random() < 0.5, "messages": [{"role": "user", "content": question}]}
            answer = await send(gateway.port, CHAT, orjson.dumps(body))
            assert (answer.status, answer.end) == (200, "whole")

    await asyncio.gather(*(worker() for _ in range(8)))
    rows = await gateway.booked(REQUESTS)
    assert len(upstream.requests) == DISTINCT
    misses = {row.saved_nanousd for row in rows if row.cache == "miss"}
    assert misses == {0}
    distinct = [row for row in rows if row.cache == "miss"]
    repeats = [row for row in rows if row.cache in ("hit", "coalesced")]
    assert (len(distinct), len(repeats)) == (DISTINCT, REQUESTS - DISTINCT)
    spent = sum(row.cost_nanousd for row in distinct)
    saved = sum(row.saved_nanousd for row in repeats)
    assert {row.cost_nanousd for row in repeats} == {0}
    # Price: 1 USD a million tokens in, 2 out: what each repeat would have cost is known from its own tokens.
    assert [row.saved_nanousd for row in repeats] == [
        row.input_tokens * 1000 + row.output_tokens * 2000 for row in repeats
    ]
    assert spent == sum(row.input_tokens * 1000 + row.output_tokens * 2000 for row in distinct)
    assert saved > 0
    recalls = gateway.runtime.recalls
    assert recalls.saved_nanousd == saved
    assert sum(recalls.counts.values()) == REQUESTS
    today = rows[0].started_us // 86_400_000_000
    measures = (await gateway.runtime.ledger.summary(Span(today, rows[-1].started_us // 86_400_000_000))).total
    assert (measures.cache_lookups, measures.cache_hits) == (REQUESTS, REQUESTS - DISTINCT)
    assert (measures.cost_nanousd, measures.saved_nanousd) == (spent, saved)
    assert figures(measures)["cache_hit_rate"] == 0.6
