"""What is counted, and how the figures of several processes become one's."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from proxy.config.resolve import parse
from proxy.core.ledger import LedgerRow, Outcome
from proxy.core.routing import RoutingTable
from proxy.telemetry import metrics
from proxy.telemetry.exposition import rendered
from proxy.telemetry.metrics import METRICS, Kind, Metrics, Snapshot, from_bytes, merge, to_bytes
from proxy.terms import AccountId, ExchangeId, NanoUsd, ProviderId, RouteName

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
TABLE = """
providers: {sim: {like: vllm, base_url: "http://127.0.0.1:9/v1"}}
routes: {general: {tiers: [sim/gpt-small], cache: {ttl: 1h}}}
accounts: {acme: {routes: {own: {tiers: [sim/private]}}}}
"""
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def table() -> RoutingTable:
    return parse(TABLE, "routes.yaml", {})


def counted() -> Metrics:
    made = Metrics("1.2.3")
    made.follow(table())
    return made


def row(
    model: str | None = "gpt-small",
    route: str | None = "general",
    *,
    outcome: Outcome = "ok",
    code: str | None = None,
    status: int = 200,
    provider: str | None = "sim",
    attempts: int = 1,
    estimated: bool = False,
    total_ms: float = 200.0,
) -> LedgerRow:
    return LedgerRow(
        id=ExchangeId("x"),
        started_us=1,
        ended_us=2,
        account=AccountId("default"),
        api="chat",
        outcome=outcome,
        status=status,
        code=code,
        route=None if route is None else RouteName(route),
        provider=None if provider is None else ProviderId(provider),
        model=model,
        streamed=True,
        attempts=attempts,
        input_tokens=10,
        cached_tokens=4,
        output_tokens=20,
        estimated=estimated,
        cost_nanousd=NanoUsd(1_500_000_000),
        saved_nanousd=NanoUsd(0),
        cache="miss",
        first_event_ms=50.0,
        total_ms=total_ms,
    )


def series(snapshot: Snapshot) -> int:
    return sum(len(each) for each in snapshot.values())


def test_an_exchange_is_in_every_figure() -> None:
    made = counted()
    made.exchange(row(), [("sim", "server_error"), ("sim", "ok")], 0.002)
    made.exchange(row(outcome="partial", code="upstream_incomplete", estimated=True), [("sim", "ok")], None)
    taken = made.snapshot()
    assert taken["penstock_requests_total"] == {
        ("general", "chat", "200", "ok"): (1,),
        ("general", "chat", "200", "partial"): (1,),
    }
    assert taken["penstock_attempts_total"] == {("sim", "server_error"): (1,), ("sim", "ok"): (2,)}
    assert taken["penstock_stream_endings_total"] == {("sim", "complete"): (1,), ("sim", "upstream_incomplete"): (1,)}
    assert taken["penstock_cache_requests_total"] == {("general", "miss"): (2,)}
    assert taken["penstock_cost_usd_total"] == {("sim", "general"): (3_000_000_000,)}
    assert {kind: count for (_, kind), count in taken["penstock_tokens_total"].items()} == {
        "input": (20,),
        "output": (40,),
        "cached": (8,),
        "cache_write": (0,),
        "reasoning": (0,),
    }
    tokens = taken["gen_ai_client_token_usage"]
    assert tokens["chat", "sim", "gpt-small", "output"][-1] == 20  # only what was reported
    durations = taken["gen_ai_client_operation_duration_seconds"]
    assert [error for *_, error in durations] == ["", "upstream_incomplete"]
    assert sum(taken["penstock_request_seconds"]["general", "chat"][:-1]) == 2
    assert taken["penstock_overhead_seconds"][()][-1] == 0.002


def test_a_value_on_a_bound_is_within_it() -> None:
    made = counted()
    made.exchange(row(total_ms=250.0), [], None)
    counts = made.snapshot()["penstock_request_seconds"]["general", "chat"]
    assert counts[metrics.REQUEST_S.buckets.index(0.25)] == 1


def test_what_a_limit_refused_is_counted_by_the_limit() -> None:
    made = counted()
    made.exchange(row(None, outcome="refused", code="budget_exceeded", status=402, provider=None, attempts=0), [], None)
    made.limited("rps")
    assert made.snapshot()["penstock_limited_total"] == {("budget",): (1,), ("rps",): (1,)}


def test_s58_ten_thousand_random_models_are_as_many_series_as_one() -> None:
    rng, made = random.Random(58), counted()

    def ask(name: str) -> None:
        made.exchange(row(name, None), [("sim", "ok")], 0.001)
        made.exchange(row(None, None, outcome="refused", code="model_not_found", status=404, provider=None), [], None)

    ask("any")
    before = series(made.snapshot())
    for _ in range(10_000):
        ask(f"gpt-{rng.getrandbits(64):x}")
    taken = made.snapshot()
    assert series(taken) == before
    (asked,) = taken["penstock_requests_total"]["other", "chat", "200", "ok"]
    assert asked == 10_001
    assert len(made._cells) == 2


def test_mischief_beyond_all_labels_ends_in_one_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CELLS_MAX", 50)
    made = counted()
    for status in range(100, 600):
        made.exchange(row(status=status), [], None)
    assert len(made._cells) == 51
    assert sum(count for (count,) in made.snapshot()["penstock_requests_total"].values()) == 500


def test_a_name_that_a_reload_takes_away_keeps_its_series() -> None:
    made = counted()
    made.exchange(row(), [], None)
    made.exchange(row("private", "own"), [], None)
    made.follow(parse(TABLE.replace("general", "renamed"), "routes.yaml", {}))
    made.exchange(row(), [], None)  # it began before
    made.exchange(row(route="renamed"), [], None)
    routes = {labels[0]: count for labels, (count,) in made.snapshot()["penstock_requests_total"].items()}
    assert routes == {"general": 1, "own": 1, "other": 1, "renamed": 1}


def test_reloads() -> None:
    made = counted()
    made.reloaded(ok=False)
    failed = made.snapshot()
    assert failed["penstock_config_reload_failed"] == {(): (1.0,)}
    made.reloaded(ok=True)
    taken = made.snapshot()
    assert taken["penstock_config_reload_failed"] == {(): (0.0,)}
    assert taken["penstock_config_reloads_total"] == {("ok",): (1,), ("failed",): (1,)}


_ROWS = st.builds(
    row,
    st.sampled_from(["gpt-small", "else"]),
    st.sampled_from(["general", None]),
    outcome=st.sampled_from(["ok", "failed"]),
    status=st.sampled_from([200, 502]),
    estimated=st.booleans(),
    total_ms=st.integers(0, 2**20).map(float),
)


@given(st.lists(st.lists(_ROWS, max_size=8), min_size=1, max_size=4))
def test_merged_figures_are_those_of_one_process_that_did_it_all(workers: Sequence[Sequence[LedgerRow]]) -> None:
    whole, parts = counted(), []
    for rows in workers:
        part = counted()
        for each in rows:
            part.exchange(each, [("sim", "ok")], 0.5)
            whole.exchange(each, [("sim", "ok")], 0.5)
        parts.append(from_bytes(to_bytes(part.snapshot())))
    merged, expected = merge(parts), whole.snapshot()
    assert merged.keys() == expected.keys()
    for name, figures in expected.items():
        assert {labels: pytest.approx(values) for labels, values in figures.items()} == merged[name], name


def test_gauges_are_joined_as_each_of_them_says() -> None:
    one: Snapshot = {
        "penstock_breaker_open": {("sim/a",): (1.0,)},
        "penstock_store_up": {("redis",): (1.0,)},
        "penstock_exchanges_running": {(): (3.0,)},
        "penstock_budget_left_usd": {("account:a", "daily"): (4.0,)},
    }
    two: Snapshot = {
        "penstock_breaker_open": {("sim/a",): (0.0,), ("sim/b",): (1.0,)},
        "penstock_store_up": {("redis",): (0.0,)},
        "penstock_exchanges_running": {(): (5.0,)},
        "penstock_budget_left_usd": {("account:a", "daily"): (3.0,)},
    }
    assert merge([one, two]) == merge([two, one])
    assert merge([one, two]) == {
        "penstock_breaker_open": {("sim/a",): (1.0,), ("sim/b",): (1.0,)},
        "penstock_store_up": {("redis",): (0.0,)},
        "penstock_exchanges_running": {(): (8.0,)},
        "penstock_budget_left_usd": {("account:a", "daily"): (3.0,)},
    }


def test_another_version_s_metrics_are_left_out() -> None:
    told = b'{"penstock_new":[[[],[1]]],"penstock_outbox_rows":[[[],[2]]],"penstock_store_up":[[[],[1]]]}'
    assert from_bytes(told) == {"penstock_outbox_rows": {(): (2,)}}


@pytest.mark.parametrize("data", [b"", b"[]", b'{"penstock_outbox_rows":1}', b'{"penstock_outbox_rows":[[[],["1"]]]}'])
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_bytes(data)


@pytest.mark.parametrize(("accept", "is_open"), [("", False), ("text/plain;version=0.0.4", False), (OPENMETRICS, True)])
def test_what_is_shown_can_be_read(accept: str, is_open: bool) -> None:
    made = counted()
    made.exchange(row(), [("sim", "ok")], 0.002)
    made.exchange(row('evil"} 1\n'), [("sim", "ok")], 0.002)
    content_type, text = rendered(made.snapshot(), accept)
    assert content_type.startswith("application/openmetrics-text" if is_open else "text/plain")
    families = {one.name: one for one in (openmetrics if is_open else plain)(text.decode())}
    shown = {one.name.removesuffix("_total") for one in METRICS}
    assert families.keys() == shown
    (cost,) = families["penstock_cost_usd"].samples
    assert (cost.name, cost.value) == ("penstock_cost_usd_total", pytest.approx(3.0))
    samples = families["penstock_request_seconds"].samples
    assert [one.value for one in samples if one.name.endswith("_count")] == [2.0]
    assert [one.value for one in samples if one.labels.get("le") == "0.25"] == [2.0]


def test_the_page_lists_every_metric() -> None:
    """Name, kind, labels and meaning, in the order in which they are declared."""
    listed = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)
    assert listed == [
        (one.name, one.kind.value, ", ".join(f"`{label}`" for label in one.labels), one.meaning) for one in METRICS
    ]


def test_every_metric_says_what_it_is() -> None:
    assert len({one.name for one in METRICS}) == len(METRICS)
    for one in METRICS:
        assert one.meaning.endswith("."), one.name
        assert bool(one.buckets) == (one.kind is Kind.HISTOGRAM), one.name
        assert one.name.endswith("_total") == (one.kind is Kind.COUNTER), one.name
        assert list(one.buckets) == sorted(one.buckets)
