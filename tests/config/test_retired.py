"""Targets that are retired, or are going to be."""

import pytest
from genai_prices.data import providers

from proxy.config.resolve import parse
from proxy.config.retired import retired


def test_what_is_retired(monkeypatch: pytest.MonkeyPatch) -> None:
    known = next(one for one in providers if one.id == "openai")
    model = next(one for one in known.models if one.id == "gpt-4o-mini")
    table = parse("routes: {a: {tiers: [openai/gpt-4o-mini, github-models/x]}}", "r.yaml", {"OPENAI_API_KEY": "k"})
    assert list(retired(table)) == ["github-models/x"]
    monkeypatch.setattr(model, "deprecated", True)
    found = retired(table)
    assert list(found) == ["openai/gpt-4o-mini", "github-models/x"]
    assert "deprecated (genai-prices" in found["openai/gpt-4o-mini"]
