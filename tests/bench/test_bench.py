"""The harness itself: that it runs, decodes what gateways send, and judges by the rows of its table."""

import json
from pathlib import Path

import pytest

from .gateways import PENSTOCK, RELAY, knows_cache
from .measure import Pace, Plan, Samples, measure, spread
from .report import FIGURES, Row, Verdict, as_json, rows_of, table
from .wire import ResponseDecoder

MINIMAL = Plan(
    starts=1,
    idle_after_s=0,
    rounds=1,
    round_s=0.05,
    brisk=Pace(streams=8, contents=10, interval_ms=30, ramp_s=0.05, rounds=1),
    many=Pace(streams=16, contents=10, interval_ms=30, ramp_s=0.05, rounds=1),
)

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
EMPTY = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
RESPONSES = [(LENGTH, 200, b"hello"), (EMPTY, 404, b""), (CHUNKED, 200, b"hello")]


@pytest.mark.parametrize(("response", "status", "body"), RESPONSES)
@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_a_response_decodes_the_same_however_it_is_cut(response: bytes, status: int, body: bytes, step: int) -> None:
    decoder = ResponseDecoder()
    decoded = b""
    for start in range(0, len(response), step):
        assert not decoder.complete
        decoded += decoder.feed(response[start : start + step])
    assert (decoder.complete, decoder.status, decoded) == (True, status, body)


@pytest.mark.parametrize("response", [row[0] for row in RESPONSES])
def test_bytes_after_the_end_are_refused(response: bytes) -> None:
    with pytest.raises(ValueError, match="after the end"):
        ResponseDecoder().feed(response + b"H")
    decoder = ResponseDecoder()
    decoder.feed(response)
    with pytest.raises(ValueError, match="after the end"):
        decoder.feed(b"H")


def test_a_body_that_ends_by_closing_is_refused() -> None:
    with pytest.raises(ValueError, match="content-length or chunked"):
        ResponseDecoder().feed(b"HTTP/1.1 200 OK\r\n\r\nhello")


KEPT_FIGURES = ["miss_cpu_us", "hit_cpu_us", "hit_share", "hit_first_p50_ms"]  # a relay keeps nothing
BY_NAME = {figure.name: figure for figure in FIGURES}


@pytest.mark.parametrize(
    ("figure_name", "relay", "penstock", "verdict"),
    [
        ("json_16_cpu_us", [100.0, 200.0, 300.0], [150.0, 300.0, 450.0], Verdict.KEPT),
        ("json_16_cpu_us", [100.0, 200.0, 300.0], [151.0, 302.0, 453.0], Verdict.MISSED),
        ("json_16_cpu_us", [100.0], [], Verdict.NOT_MEASURED),
        ("json_16_cpu_us", [], [100.0], Verdict.NOT_MEASURED),
        ("idle_rss_mib", [40.0], [80.0], Verdict.KEPT),
        ("idle_rss_mib", [40.0], [80.1], Verdict.MISSED),
        ("brisk_event_p99_ms", [-0.1], [9.0], Verdict.NO_TARGET),
    ],
)
def test_verdicts(figure_name: str, relay: list[float], penstock: list[float], verdict: Verdict) -> None:
    row = Row(BY_NAME[figure_name], {RELAY.name: relay, PENSTOCK.name: penstock})
    assert row.verdict() is verdict


def test_a_ratio_compares_within_its_round() -> None:
    row = Row(BY_NAME["json_16_cpu_us"], {RELAY.name: [100.0, 400.0, 100.0], PENSTOCK.name: [120.0, 480.0, 120.0]})
    assert row.ratio(PENSTOCK.name) == pytest.approx(1.2)


def test_there_is_no_ratio_to_a_relay_that_noise_put_below_zero() -> None:
    row = Row(BY_NAME["brisk_event_p99_ms"], {RELAY.name: [0.9, -0.7], PENSTOCK.name: [1.0, 1.2]})
    assert row.ratio(PENSTOCK.name) is None


@pytest.mark.parametrize(("values", "expected"), [([5.0], 0.0), ([8.0, 10.0, 12.0], 0.1), ([0.0, 0.0], 0.0)])
def test_spread(values: list[float], expected: float) -> None:
    assert spread(values) == pytest.approx(expected)


def test_a_run_of_the_relay_alone_fills_its_column(tmp_path: Path) -> None:
    samples: Samples = measure([RELAY], MINIMAL, tmp_path, lambda _: None)
    rows = rows_of(samples)
    assert [row.figure.name for row in rows if row.median(RELAY.name) is None] == KEPT_FIGURES
    text = table(rows, [RELAY.name])
    assert len(text.splitlines()) == len(FIGURES) + 2
    written = json.loads(json.dumps(as_json(samples, [RELAY.name], [PENSTOCK.name])))
    assert {figure["verdict"] for figure in written["figures"]} == {"not_measured", "no_target"}
    assert set(written["totals"]["brisk_event_p99_ms_total"]) == {"direct", RELAY.name}


@pytest.mark.skipif(not knows_cache(), reason="the configuration has no key `cache`: hits cannot be measured here")
def test_hits_are_measured_where_answers_are_kept(tmp_path: Path) -> None:
    samples = measure([PENSTOCK], MINIMAL, tmp_path, lambda _: None)
    medians = {row.figure.name: row.median(PENSTOCK.name) or 0.0 for row in rows_of(samples)}
    assert all(medians[name] for name in KEPT_FIGURES)
    assert medians["hit_cpu_us"] < medians["miss_cpu_us"]
