"""What a query's values mean, and what is no value."""

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.failure import FailureKind, Rejected
from proxy.core.ledger import COUNT_MAX, US_PER_S, Cursor, row_from
from proxy.edge.admin.values import Query, cursor, moment_us, number, one_of, tag, text
from tests.rows import row

DAY_US = 1_767_225_600 * US_PER_S  # 2026-01-01


@pytest.mark.parametrize(
    ("given", "at_us"),
    [
        ("0", 0),
        ("1767225600", DAY_US),
        ("1767225600.000001", DAY_US + 1),
        ("1767225600.25", DAY_US + 250_000),
        ("2026-01-01", DAY_US),
        ("2026-01-01T00:00:00Z", DAY_US),
        ("2026-01-01T02:00:00+02:00", DAY_US),
        ("2025-12-31 23:59:59.999999", DAY_US - 1),
        ("1950-01-01", 0),
        ("0001-01-01T00:00:00+23:59", 0),
        ("9999-12-31T23:59:59-23:59", 253_402_387_139 * US_PER_S),
        ("253402300799", 253_402_300_799 * US_PER_S),
    ],
)
def test_a_moment(given: str, at_us: int) -> None:
    assert moment_us({"since": given}, "since") == at_us


@pytest.mark.parametrize(
    "given",
    ["", " ", "yesterday", "-1", "1e9", "2026-13-01", "2026-01-01T00:00:00 02:00", "1767225600000", "9" * 5000,
     "1767225600000000", "\u0661", "\uff12\uff10\uff12\uff16-01-01", "1.", ".5", "nan", "inf", "\ud800", "0\0", "'; --"],
)  # fmt: skip
def test_no_moment(given: str) -> None:
    with pytest.raises(Rejected) as refused:
        moment_us({"since": given}, "since")
    assert refused.value.failure.kind is FailureKind.BAD_REQUEST
    assert refused.value.failure.param == "since"
    assert "2026-11-21T09:30:00Z" in refused.value.failure.message
    assert len(refused.value.failure.message) < 600


@pytest.mark.parametrize(("given", "value"), [("1", 1), ("366", 366), ("007", 7)])
def test_a_number(given: str, value: int) -> None:
    assert number({"days": given}, "days", 1, 366) == value


@pytest.mark.parametrize("given", ["", "0", "367", "-1", "+1", "1.0", "1e1", " 1", "\u0661", "9" * 5000, "0x1", "1_0"])
def test_no_number(given: str) -> None:
    with pytest.raises(Rejected, match="'days' must be a whole number from 1 to 366; got"):
        number({"days": given}, "days", 1, 366)


def test_names_are_as_rows_have_them() -> None:
    odd = "nul\0 half \ud800"
    assert text({"account": odd}, "account") == row_from(asdict(row(account=odd))).account  # type: ignore[union-attr]
    assert text({"account": "a" * 128}, "account") == "a" * 128
    assert text({"model": "a" * 256}, "model") == "a" * 256
    for name, wrong in (("account", ""), ("account", "a" * 129), ("model", "a" * 257)):
        with pytest.raises(Rejected, match=rf"'{name}' must be 1 to \d+ characters"):
            text({name: wrong}, name)


def test_tags_words_and_cursors() -> None:
    assert tag({"tag": "team=a=b"}, "tag") == ("team", "a=b")
    assert tag({"tag": "team="}, "tag") == ("team", "")
    for wrong in ("team", "", "=x", " =x"):
        with pytest.raises(Rejected, match="'tag' must be name=value"):
            tag({"tag": wrong}, "tag")
    assert one_of({"outcome": "ok"}, "outcome", ("ok", "failed")) == "ok"
    with pytest.raises(Rejected, match=r"must be one of ok, failed; got 'faild'\. Did you mean 'failed'\?"):
        one_of({"outcome": "faild"}, "outcome", ("ok", "failed"))
    assert cursor({"after": "12.req_1"}, "after") == Cursor(12, "req_1")
    assert cursor({"after": f"{'9' * 4000}.a\0b"}, "after") == Cursor(COUNT_MAX, "a\ufffdb")
    for wrong in ("", "x", "12", "12.", ".a", "-1.a", "\u0661.a"):
        with pytest.raises(Rejected, match="'after' must be what the page before told"):
            cursor({"after": wrong}, "after")


_READERS: list[Callable[[Query, str], Any]] = [
    moment_us, text, tag, cursor, lambda query, name: number(query, name, 1, 1000),
    lambda query, name: one_of(query, name, ("ok", "failed")),
]  # fmt: skip


@pytest.mark.parametrize("read", _READERS)
def test_what_was_left_out_is_none(read: Callable[[Query, str], Any]) -> None:
    assert read({}, "x") is None


@pytest.mark.parametrize("read", _READERS)
@given(given=st.text(alphabet=st.characters(), max_size=40) | st.from_regex(r"[0-9TZ:.+ -]{0,30}"))
def test_any_text_is_a_value_or_refused(read: Callable[[Query, str], Any], given: str) -> None:
    with contextlib.suppress(Rejected):
        value = read({"x": given}, "x")
        assert value is not None
        assert not isinstance(value, int) or 0 <= value <= 253_402_500_000 * US_PER_S
