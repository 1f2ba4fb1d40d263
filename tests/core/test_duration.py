import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.duration import parse

ROWS: list[tuple[str, str | None, float | None]] = [
    ("5s", None, 5.0),
    ("500ms", None, 0.5),
    ("1.5m", None, 90.0),
    ("2h", None, 7200.0),
    ("1d", None, 86400.0),
    (" 5s ", None, 5.0),
    ("0s", None, 0.0),
    ("30", "s", 30.0),
    ("30ms", "s", 0.03),
    ("30", None, None),
    ("", "s", None),
    ("s", None, None),
    ("-5s", None, None),
    ("+5s", None, None),
    ("5 s", None, None),
    ("5S", None, None),
    ("5s5s", None, None),
    ("5w", None, None),
    ("1e3s", None, None),
    (".5s", None, None),
    ("5.s", None, None),
    ("1_000s", None, None),
    ("nan", "s", None),
    ("inf", "s", None),
    ("9" * 10 + "s", None, None),
    ("5s\n", None, 5.0),
    ("5\0s", None, None),
]


@pytest.mark.parametrize(("text", "unit", "seconds"), ROWS)
def test_durations(text: str, unit: str | None, seconds: float | None) -> None:
    assert parse(text, default_unit=unit) == seconds


@given(text=st.text(max_size=20), unit=st.sampled_from([None, "s"]))
def test_any_text_is_a_bounded_duration_or_none(text: str, unit: str | None) -> None:
    seconds = parse(text, default_unit=unit)
    assert seconds is None or 0 <= seconds < 10**9 * 86400
