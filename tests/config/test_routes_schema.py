"""The JSON Schema: current, valid, and of use to an editor; and the shipped file against it."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from proxy.config.alerts import MailEntry, SlackEntry
from proxy.config.read import read
from proxy.config.schema import SECTIONS, BalancedTier, File, json_schema, rendered
from proxy.config.section import Section

CONFIG = Path(__file__).parents[2] / "config"


def test_the_schema_in_the_repository_is_current() -> None:
    assert (CONFIG / "routes.schema.json").read_text("utf-8") == rendered(), "run `make schema`"


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_shipped_file_is_valid_and_names_the_schema() -> None:
    text = (CONFIG / "routes.yaml").read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=./routes.schema.json\n")
    jsonschema.validate(read(text, "routes.yaml").data, json_schema())


def test_every_field_is_described() -> None:
    sections: list[type[Section]] = [*SECTIONS.values(), BalancedTier, SlackEntry, MailEntry]
    for section in sections:
        assert section.__doc__
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


VALID: list[Any] = [
    {},
    {"routes": {"x": {"tiers": ["openai/gpt-4o"]}}},
    {"routes": {"x": {"tiers": ["openrouter/a/b:free", {"target": "openai/gpt-4o"}]}}},
    {"providers": {"openai": {}, "gpu-box": {"like": "vllm", "base_url": "${X:-http://localhost:1}/v1"}}},
    {"providers": {"openai": {"api_key": "env:KEY", "pass_headers": ["x-a"], "enabled": False}}},
    {"defaults": {"timeouts": {"connect": "500ms", "total": "1.5h"}}},
    {"routes": {"x": {"tiers": [{"targets": ["a/b", {"target": "a/c", "weight": 2}], "balance": "fastest"}]}}},
    {"routes": {"x": {"tiers": ["a/b"], "params": {"temperature": 0.3, "stop": ["x"], "seed": 1}}}},
    {"cors": {"origins": ["https://app.example.com", "http://localhost:3000"]}, "default_provider": "openai"},
    {"providers": {"openai": {"price": {"*": {"input": 2.5, "output": "10", "above": []}}}}},
    {"routes": {"x": {"tiers": [{"target": "openai/gpt-4o", "price": {"image": 0.04}}]}}},
    {"routes": {"x": {"tiers": ["openai/x"], "cost_tier": "economy", "unpriced": {"reserve": 0.02}}}},
    {"routes": {"x": {"tiers": [{"target": "openai/x", "cost_tier": "premium", "max_output_tokens": 512}]}}},
    {"cost_tiers": {"low": "0.001"}, "defaults": {"cost_tier": "low"}, "currency": {"code": "CAD", "per_usd": 1.38}},
    {"budgets": {"daily": 100, "monthly": "8999999.99", "alert_at": 0.8, "timezone": "UTC", "when_away": "closed"}},
    {"accounts": {"acme.eu_1-b": {"budgets": {"daily": 5}}, "default": {}}, "baseline": "openai/gpt-4o"},
    {"alerts": [{"to": "webhook", "url": "env:U", "secret": "env:S"}, {"to": "slack", "url": "env:V"}]},
    {"alerts": [{"to": "mail", "host": "h", "from": "a@b.c", "recipients": ["d@e.f"], "security": "tls", "port": 465}]},
    {"ledger": {"keep_days": 35}},
    {"defaults": {"cache": "off"}, "routes": {"x": {"tiers": ["a/b"], "cache": {"ttl": "1.5h"}}}},
    {"defaults": {"cache": {"ttl": "30d", "tool_calls": True, "replay": "paced"}}},
    {"routes": {"x": {"tiers": ["a/b"], "cache": False}}},
    {"ledger": {}},
    {"limits": {"rps": 0.5, "burst": 50, "tpm": 200_000, "concurrency": 32}},
    {"accounts": {"acme": {"limits": {"tpm": 5}}}, "providers": {"openai": {"limits": {"rps": 10}}}},
    {"models": {"gpt-*": "openai/*"}, "default_route": "x", "access": {"mode": "open"}},
    {
        "access": {"mode": "keys"},
        "accounts": {"acme": {"routes": {"r": {"tiers": ["a/b"]}}, "providers": {"openai": {}}}},
    },
]
INVALID: list[Any] = [
    {"limits": {"rps": 0}},
    {"limits": {"burst": 1.5}},
    {"accounts": {"acme": {"limits": {"tpm": 0}}}},
    {"providers": {"openai": {"limits": {"concurrency": 100_001}}}},
    {"budgets": {"daily": -1}},
    {"budgets": {"daily": 9_000_001}},
    {"budgets": {"alert_at": 0}},
    {"accounts": {"a/b": {}}},
    {"cost_tiers": {"High": 1}},
    {"alerts": [{"to": "pigeon"}]},
    {"alerts": [{"to": "slack", "url": "https://hooks.slack.example/x"}]},
    {"alerts": [{"to": "mail", "host": "smtp.example.com", "recipients": ["a@b.c"]}]},
    {"baseline": "gpt-4o"},
    {"ledger": {"keep_days": 30}},
    {"cache": {"ttl": "1h"}},
    {"defaults": {"cache": True}},
    {"defaults": {"cache": "1h"}},
    {"defaults": {"cache": {}}},
    {"defaults": {"cache": {"ttl": 3600}}},
    {"defaults": {"cache": {"ttl": "1w"}}},
    {"defaults": {"cache": {"ttl": "1h", "replay": "slow"}}},
    {"routes": {"a/b": {"tiers": ["openai/x"]}}},
    {"routes": {"x": {}}},
    {"routes": {"x": {"tiers": []}}},
    {"routes": {"x": {"tiers": ["gpt-4o"]}}},
    {"routes": {"x": {"tiers": [{"targets": []}]}}},
    {"routes": {"x": {"tiers": [{"targets": ["openai/x"], "balance": "cheap"}]}}},
    {"routes": {"x": {"tiers": [5]}}},
    {"providers": {"Open AI": {}}},
    {"providers": {"openai": {"api_key": "sk-literal"}}},
    {"providers": {"openai": {"base_url": None}}},
    {"defaults": {"timeouts": {"connect": 5}}},
    {"access": {"mode": "closed"}},
    {"accounts": {"acme": {"routes": {"r": {"tiers": []}}}}},
    {"providers": {"openai": {"price": {"*": {"input": -1, "output": 1}}}}},
    {"providers": {"openai": {"price": {"*": {"input": "2,5", "output": 1}}}}},
]


@pytest.mark.parametrize("data", VALID)
def test_editor_and_program_agree_on_what_is_valid(data: Any) -> None:
    jsonschema.validate(data, json_schema())
    File.model_validate(data)


@pytest.mark.parametrize("data", INVALID)
def test_an_editor_marks_what_is_invalid(data: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json_schema())


def test_an_editor_completes_every_form_of_a_tier() -> None:
    made = json_schema()
    forms = made["$defs"]["RouteEntry"]["properties"]["tiers"]["items"]["oneOf"]
    short, long, balanced = forms
    assert short["type"] == "string"
    assert short["examples"]
    entry = made["$defs"][long["$ref"].rpartition("/")[2]]
    assert entry["type"] == "object"
    assert list(entry["properties"]) == ["target", "price", "cost_tier", "max_output_tokens"]
    assert entry["additionalProperties"] is False
    entry = made["$defs"][balanced["$ref"].rpartition("/")[2]]
    assert list(entry["properties"]) == ["targets", "balance"]


def test_the_schema_shows_no_null_and_no_generated_titles() -> None:
    text = json.dumps(json_schema())
    assert '"null"' not in text
    assert '"title": "Base Url"' not in text
