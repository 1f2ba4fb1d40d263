"""What clients write and people read around the books: tags, cursors, currencies, texts."""

from decimal import Decimal

import pytest

from proxy.core import currency, tags
from proxy.core.currency import Currency
from proxy.core.ledger import Cursor, cursor_from
from proxy.core.tags import Tags
from proxy.core.text import storable


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", ()),
        ("a=b", (("a", "b"),)),
        (" a = b , c=d ", (("a", "b"), ("c", "d"))),
        ("a=b,a=c", (("a", "b"),)),
        ("a,=b,c=", (("c", ""),)),
        ("sum=a=b", (("sum", "a=b"),)),
        ("a=x\ty\u2028z", (("a", "x?y?z"),)),
        ("a" * 100 + "=" + "b" * 200, (("a" * 64, "b" * 128),)),
    ],
)
def test_tags_of_a_header(header: str, found: Tags) -> None:
    assert tags.parse(header) == found
    assert tags.tags_from(tags.tags_text(found)) == found


def test_tags_are_few() -> None:
    assert len(tags.parse(",".join(f"t{number}=v" for number in range(50)))) == tags.TAGS_MAX


@pytest.mark.parametrize("value", [None, 7, "x", ["a"], [["a"]], [["a", 1]], [["a", "b", "c"]], {"a": "b"}])
def test_what_is_no_tags_is_none(value: object) -> None:
    assert tags.tags_from(value) in ((), (("x", ""),))


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        ("17.req_1", Cursor(17, "req_1")),
        ("17.a.b", Cursor(17, "a.b")),
        ("", None),
        ("17", None),
        ("17.", None),
        ("-1.x", None),
        ("²7.x", None),
    ],
)
def test_cursors(text: str, cursor: Cursor | None) -> None:
    assert cursor_from(text) == cursor
    if cursor is not None:
        assert str(cursor) == text


@pytest.mark.parametrize(
    ("nanousd", "per_usd", "exact"),
    [
        (0, "1", "0.000000"),
        (10**9, "1.38", "1.380000"),
        (1, "1", "0.000000"),
        (500, "1", "0.000000"),
        (1500, "1", "0.000002"),
        (123_456_789, "0.5", "0.061728"),
        (9 * 10**18, "1", "9000000000.000000"),
    ],
)
def test_amounts(nanousd: int, per_usd: str, exact: str) -> None:
    assert str(currency.amount(nanousd, Currency("XXX", Decimal(per_usd)))) == exact


def test_amounts_for_the_eye() -> None:
    assert currency.shown(12_345_678_900) == "12.35 USD"
    assert currency.shown(1_234_567_000_000_000, Currency("CAD", Decimal("1.38"))) == "1,703,702.46 CAD"
    assert currency.shown(12_345) == "0.000012 USD"
    assert currency.shown(0) == "0.00 USD"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("CAD=1.38", Currency("CAD", Decimal("1.38"))),
        ("cad=2", Currency("CAD", Decimal(2))),
        ("CAD", None),
        ("CAD=", None),
        ("CAD=x", None),
        ("CAD=0", None),
        ("CAD=-1", None),
        ("CAD=nan", None),
        ("CAD=inf", None),
        ("DOLLAR=1", None),
    ],
)
def test_currencies(text: str, found: Currency | None) -> None:
    assert currency.parse(text) == found


def test_storable_text() -> None:
    assert storable("plain é 🙂") == "plain é 🙂"
    assert storable("a\0b") == "a\ufffdb"
    assert storable("\ud83d\ude00") != "\ud83d\ude00"
    for text in ("\ud800", "x\udfffy\0", "é\0"):
        assert "\0" not in storable(text)
        storable(text).encode()
