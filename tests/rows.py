"""Ledger rows for tests: plausible ones, in bulk, and what a store must say of them, found the slow and obvious way."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from proxy.core.ledger import US_PER_DAY, US_PER_S, LedgerRow
from proxy.terms import AccountId, ExchangeId, NanoUsd, ProviderId, RouteName

DAY = 20_000  # 2024-10-04
NOON_US = DAY * US_PER_DAY + US_PER_DAY // 2


def row(number: int = 1, **changes: Any) -> LedgerRow:
    """A request at noon and some seconds, answered in two seconds."""
    started = NOON_US + number * US_PER_S
    plain = LedgerRow(
        id=ExchangeId(f"req_{number:06d}"),
        started_us=started,
        ended_us=started + 2 * US_PER_S,
        account=AccountId("acme"),
        api="chat",
        outcome="ok",
        status=200,
        virtual_key="vk_1",
        route=RouteName("general"),
        provider=ProviderId("openai"),
        model="gpt-4o-mini",
        streamed=True,
        attempts=1,
        input_tokens=1000,
        cached_tokens=200,
        output_tokens=100,
        reasoning_tokens=10,
        cost_nanousd=NanoUsd(210_000),
        cost_source="listed",
        baseline_nanousd=NanoUsd(3_500_000),
        cache="miss",
        first_event_ms=400.0,
        total_ms=2000.0,
        tags=(("team", "search"),),
    )
    return replace(plain, **changes)


def random_rows(count: int, rng: random.Random, days: int = 3) -> list[LedgerRow]:
    return [_random_row(number, rng, days) for number in range(count)]


def _random_row(number: int, rng: random.Random, days: int) -> LedgerRow:
    started = (DAY - rng.randrange(days)) * US_PER_DAY + rng.randrange(US_PER_DAY)
    total_ms = round(rng.lognormvariate(7, 1), 3)
    outcome = rng.choices(
        ("ok", "failed", "partial", "refused", "client_cancelled", "interrupted"), (80, 5, 3, 5, 5, 2)
    )[0]
    output = rng.randrange(0, 3000)
    return row(
        number,
        started_us=started,
        ended_us=started + int(total_ms * 1000),
        account=rng.choice(("acme", "bravo", "default")),
        virtual_key=rng.choice((None, "vk_1", "vk_2")),
        route=rng.choice((None, "general", "voice")),
        provider=rng.choice((None, "openai", "groq")),
        model=rng.choice((None, "gpt-4o-mini", "gpt-oss-120b")),
        outcome=outcome,
        status=200 if outcome == "ok" else 502,
        code=None if outcome == "ok" else "upstream_error",
        streamed=rng.random() < 0.5,
        attempts=rng.randrange(1, 4),
        fell_back=rng.random() < 0.1,
        output_tokens=output,
        reasoning_tokens=output // 4,
        estimated=rng.random() < 0.2,
        cost_nanousd=rng.randrange(10**7),
        cost_source=rng.choice(("listed", "reported", "unknown")),
        saved_nanousd=rng.choice((0, 5000)),
        baseline_nanousd=rng.choice((None, 10**7)),
        cache=rng.choice(("off", "hit", "miss", "coalesced", "refresh", "bypass")),
        first_event_ms=rng.choice((None, round(total_ms / 4, 3))),
        total_ms=total_ms,
        tags=rng.choice(((), (("team", "search"),), (("team", "ads"), ("run", "7")))),
    )


def counted(rows: Iterable[LedgerRow]) -> dict[str, Any]:
    """What reports say of rows, summed one by one."""
    rows = list(rows)
    return {
        "calls": len(rows),
        "failed": sum(one.outcome in ("failed", "partial", "interrupted") for one in rows),
        "refused": sum(one.outcome == "refused" for one in rows),
        "cancelled": sum(one.outcome == "client_cancelled" for one in rows),
        "fallbacks": sum(one.fell_back for one in rows),
        "cache_hits": sum(one.cache in ("hit", "semantic", "coalesced") for one in rows),
        "cache_lookups": sum(one.cache not in ("off", "bypass") for one in rows),
        "input_tokens": sum(one.input_tokens for one in rows),
        "output_tokens": sum(one.output_tokens for one in rows),
        "cost_nanousd": sum(one.cost_nanousd for one in rows),
        "saved_nanousd": sum(one.saved_nanousd for one in rows),
        "baseline_nanousd": sum(one.baseline_nanousd or 0 for one in rows),
        "baseline_cost_nanousd": sum(one.cost_nanousd for one in rows if one.baseline_nanousd is not None),
    }


def exact_quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]
