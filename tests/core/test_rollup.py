"""Roll-ups against counting rows one by one; histograms against sorted values."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import histogram, rollup
from proxy.core.ledger import COLUMNS, COUNT_MAX, LedgerRow, as_stored, columns_of, row_from
from proxy.core.rollup import ALL, DIMENSIONS, EVERYONE, OTHER, Key, Measures
from proxy.core.summary import figures
from tests.rows import DAY, counted, exact_quantile, random_rows, row


def test_batches_add_up_to_the_whole_in_any_order() -> None:
    rows = random_rows(300, random.Random(1))
    whole = rollup.roll_up(rows)
    random.Random(2).shuffle(rows)
    held: dict[Key, Measures] = {}
    while rows:
        held |= rollup.merged(rollup.roll_up(rows[:17]), held)
        rows = rows[17:]
    assert held == whole


def test_a_row_counts_once_in_each_dimension_for_everyone_and_its_account() -> None:
    keys = rollup.keys(row(1, tags=(("a", "1"), ("b", "2"))))
    assert len(keys) == len(set(keys))
    assert {key.dimension for key in keys} == {ALL, *DIMENSIONS}
    assert {key.account for key in keys} == {EVERYONE, "acme"}
    assert {key.day for key in keys} == {DAY}
    assert sorted(key.value for key in keys if key.dimension == "tag") == ["a=1", "a=1", "b=2", "b=2"]
    assert [key for key in keys if key.dimension == "account"] == [Key(EVERYONE, DAY, "account", "acme")]


def test_what_a_row_measures() -> None:
    told = rollup.measures(row(1))
    assert {name: value for name, value in told._asdict().items() if name in counted([])} == counted([row(1)])
    assert (told.generated_tokens, told.generating_ms) == (100, 1600)  # of a stream, from its first event
    assert rollup.measures(row(1, streamed=False)).generating_ms == 2000
    for silent in ({"cache": "hit"}, {"estimated": True}, {"outcome": "failed"}, {"output_tokens": 0}):
        assert rollup.measures(row(1, **silent)).generating_ms == 0
    assert rollup.measures(row(1, cost_source="unknown")).unpriced == 1
    assert rollup.measures(row(1, cost_source="unknown", input_tokens=0, output_tokens=0)).unpriced == 0
    assert all(type(value) is int for value in told)


def test_columns_are_read_back() -> None:
    (measured,) = {rollup.roll_up(random_rows(50, random.Random(3)))[Key(EVERYONE, DAY, ALL, "")]}
    assert rollup.from_columns(rollup.columns(measured)) == measured
    assert rollup.columns(Measures(cost_nanousd=COUNT_MAX * 5))[Measures._fields.index("cost_nanousd")] == COUNT_MAX


def test_a_full_dimension_counts_the_rest_as_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rollup.VALUES_MAX, "model", 3)
    keys = [Key(EVERYONE, DAY, "model", name) for name in ("known", "new", "newer", "newest")]
    added = {key: Measures(calls=1) for key in keys}
    groups = rollup.groups_of(keys[1:])
    assert groups == {(EVERYONE, DAY, "model")}
    bounded = rollup.bounded(added, {keys[0]}, dict.fromkeys(groups, 2))
    assert {key.value: measured.calls for key, measured in bounded.items()} == {"known": 1, "new": 1, OTHER: 2}


@given(st.lists(st.floats(0, 2**21), min_size=1, max_size=200), st.sampled_from((0.01, 0.5, 0.9, 0.95, 1.0)))
def test_a_quantile_is_within_its_bucket(values: list[float], share: float) -> None:
    total = 0
    for value in values:
        total += histogram.one(value)
    told = histogram.quantile(total, share)
    exact = exact_quantile(values, share)
    assert told is not None
    if exact < 1:
        assert told == 0.5
    elif exact < 2**20:
        assert told == pytest.approx(exact, rel=0.073)
    else:
        assert told == pytest.approx(2**20.1)
    assert histogram.unpack(histogram.pack(total)) == total
    assert sum(histogram.counts(total)) == len(values)


@given(st.floats(0, 10**9))
def test_buckets_rise_and_hold_their_values(value: float) -> None:
    bucket = histogram.bucket_of(value)
    assert 0 <= bucket < histogram.BUCKETS
    assert histogram.bucket_of(value * 1.2) >= bucket


def test_nothing_counted_has_no_quantile() -> None:
    assert histogram.quantile(0, 0.5) is None
    assert histogram.pack(0) == b""
    told = figures(Measures())
    assert told["total_ms"] == {"p50": None, "p95": None}
    assert (told["error_rate"], told["cache_hit_rate"], told["tokens_per_s"]) == (None, None, None)


def test_figures_are_what_they_are_called() -> None:
    rows = [
        row(1),
        row(2, cache="hit", cost_nanousd=0, saved_nanousd=210_000),
        row(3, outcome="partial"),
        row(4, fell_back=True, cache="off", baseline_nanousd=None),
    ]
    total = rollup.roll_up(rows)[Key(EVERYONE, DAY, ALL, "")]
    told = figures(total)
    assert (told["error_rate"], told["fallback_rate"], told["cache_hit_rate"]) == (0.25, 0.25, pytest.approx(1 / 3))
    assert told["cost_nanousd"] == 630_000
    assert told["saved_by_cache"] == 0.00021
    assert told["saved_against_baseline_nanousd"] == 3 * 3_500_000 - 420_000
    assert told["tokens_per_s"] == pytest.approx(100 / 1.6, abs=0.01)
    assert told["first_event_ms"]["p50"] == pytest.approx(400, rel=0.072)


def test_the_columns_are_the_fields_of_a_row() -> None:
    assert tuple(LedgerRow.__dataclass_fields__) == COLUMNS


_TAGS = st.lists(st.tuples(st.text(), st.text()), max_size=3).map(tuple)


@given(st.builds(row, model=st.text(), code=st.none() | st.text(), total_ms=st.floats(), tags=_TAGS))
def test_what_is_stored_is_stable(hostile: LedgerRow) -> None:
    columns = columns_of(hostile)
    stored = as_stored(hostile, columns)
    assert columns_of(stored) == columns
    assert row_from(dict(zip(COLUMNS, columns, strict=True))) == stored


@pytest.mark.parametrize("missing", ["id", "started_us", "account", "outcome"])
def test_a_record_without_what_every_row_has_is_none(missing: str) -> None:
    record = dict(zip(COLUMNS, columns_of(row(1)), strict=True))
    assert row_from({**record, missing: None}) is None
    assert row_from({name: value for name, value in record.items() if name != missing}) is None
