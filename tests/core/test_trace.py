import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.trace import Parent, parent_of, traceparent_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_is_written_is_read(trace_id: int, span_id: int, sampled: bool) -> None:
    written = traceparent_of(trace_id, span_id, sampled=sampled)
    assert parent_of(written) == Parent(trace_id, span_id, sampled)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",  # of version 00 there is no more
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_no_traceparent_is_none(header: str | None) -> None:
    assert parent_of(header) is None


def test_later_versions_may_have_more() -> None:
    assert parent_of(f"01-{TRACE}-{SPAN}-03-more") == Parent(int(TRACE, 16), int(SPAN, 16), sampled=True)
    assert parent_of(f"00-{TRACE}-{SPAN}-02") == Parent(int(TRACE, 16), int(SPAN, 16), sampled=False)
