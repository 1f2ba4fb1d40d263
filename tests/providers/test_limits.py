"""Reset hints of providers' headers: what is used up counts, what is not does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.limits import reset_s

NOW = 1_795_262_400.0  # 2026-11-21T12:00:00Z

ROWS = [
    ({}, None),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "2m59.56s"}, 179.56),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 0.12),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h0m1s"}, 3601.0),
    ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "7.66s"}, 7.66),
    ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "6m0s"}, None),
    ({"x-ratelimit-remaining-requests": "0"}, None),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, None),
    (
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "9s",
        },
        9.0,
    ),
    (
        {
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": "2026-11-21T12:00:42Z",
        },
        42.0,
    ),
    (
        {
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2026-11-21T11:59:00Z",
        },
        0.0,
    ),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1795262430000"}, 30.0),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1795262430"}, 30.0),
    ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"}, 12.0),
    ({"ratelimit": '"api";r=0;t=55'}, 55.0),
    ({"ratelimit": '"api";r=3;t=55'}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), ROWS, ids=str)
def test_resets(headers: dict[str, str], seconds: float | None) -> None:
    found = reset_s(headers, NOW)
    assert found is None if seconds is None else found == pytest.approx(seconds)


@given(st.text(max_size=30), st.text(max_size=5))
def test_any_header_is_survived(reset: str, remaining: str) -> None:
    headers = {"x-ratelimit-remaining-tokens": remaining, "x-ratelimit-reset-tokens": reset, "ratelimit": reset}
    found = reset_s(headers, NOW)
    assert found is None or found >= 0
