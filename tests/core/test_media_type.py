"""Which content-types are JSON."""

import pytest

from proxy.core.media_type import refusal


@pytest.mark.parametrize(
    "given", [None, "application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"]
)
def test_json(given: str | None) -> None:
    assert refusal(given) is None


@pytest.mark.parametrize("given", ["", "text/plain", "application/jsonp", "multipart/form-data; boundary=x", "json"])
def test_not_json(given: str) -> None:
    told = refusal(given)
    assert told is not None
    assert "application/json" in told
