"""What changed between two files, in words."""

from collections.abc import Mapping

import pytest

from proxy.config.diff import CHANGES_MAX, changes
from proxy.config.pricing import with_price_list
from proxy.config.resolve import parse
from proxy.core.routing import RoutingTable

ENVIRON = {"OPENAI_API_KEY": "sk-canary-1", "HOOK": "https://hooks.example/canary-2"}
ROUTE = "routes: {a: {tiers: [openai/x, groq/y]}}"


def table(text: str, environ: Mapping[str, str] = ENVIRON) -> RoutingTable:
    return with_price_list(parse(text, "routes.yaml", environ))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (ROUTE, ROUTE, []),
        (ROUTE, "routes: {}", ["route a: removed"]),
        ("routes: {}", ROUTE, ["route a: added"]),
        (
            ROUTE,
            "routes: {a: {tiers: [groq/y, openai/x]}}",
            ["route a: served by groq/y, openai/x, was openai/x, groq/y"],
        ),
        (ROUTE, "routes: {a: {enabled: false, tiers: [openai/x, groq/y]}}", ["route a: switched off"]),
        (
            ROUTE,
            "routes: {a: {tiers: [openai/x, groq/y], timeouts: {idle: 9s}, params: {temperature: 0}, hedge: true}}",
            ["route a: timeouts; params; hedge"],
        ),
        (
            "routes: {a: {tiers: [{targets: [openai/x, groq/y]}]}}",
            "routes: {a: {tiers: [{targets: [openai/x, groq/y], balance: cheapest}]}}",
            ["route a: balance"],
        ),
        (
            ROUTE,
            f"{ROUTE}\nproviders: {{openai: {{enabled: false}}}}",
            ["provider openai: inactive, switched off (enabled: false)"],
        ),
        (ROUTE, f"{ROUTE}\nproviders: {{mine: {{like: vllm}}}}", ["provider mine: added"]),
        (
            ROUTE,
            f"{ROUTE}\nproviders: {{openai: {{base_url: 'https://a.example/canary-3'}}}}",
            ["provider openai: address", "provider openai: prices"],
        ),
        (ROUTE, f"{ROUTE}\nmodels: {{gpt-4: a}}", ["model gpt-4: added"]),
        (f"{ROUTE}\nmodels: {{gpt-4: a}}", f"{ROUTE}\nmodels: {{gpt-4: openai/x}}", ["model gpt-4: openai/x, was a"]),
        (ROUTE, f"{ROUTE}\naccess: {{mode: keys}}", ["access: keys, was open"]),
        (ROUTE, f"{ROUTE}\ndefaults: {{breaker: {{failures: 9}}}}", ["breaker changed"]),
        (ROUTE, f"{ROUTE}\ndefault_route: a", ["default_route changed"]),
        (ROUTE, f"{ROUTE}\ncost_tiers: {{small: 0.01}}", ["cost tiers or currency changed"]),
        (ROUTE, f"{ROUTE}\nalerts: [{{to: webhook, url: env:HOOK}}]", ["alerts changed"]),
        (
            ROUTE,
            f"{ROUTE}\naccounts: {{team: {{routes: {{a: {{tiers: [groq/z]}}}}}}}}",
            ["account team: route a: served by groq/z, was openai/x, groq/y"],
        ),
    ],
)
def test_each_change_has_its_line(before: str, after: str, told: list[str]) -> None:
    assert list(changes(table(before), table(after))) == told


def test_no_secret_is_told() -> None:
    told = changes(table(ROUTE), table(ROUTE, {"OPENAI_API_KEY": "sk-canary-5"}))
    assert told == ("provider openai: credentials",)


def test_what_is_told_is_bounded() -> None:
    routes = ", ".join(f"r{number}: {{tiers: [openai/x]}}" for number in range(CHANGES_MAX + 7))
    told = changes(table("routes: {}"), table(f"routes: {{{routes}}}"))
    assert len(told) == CHANGES_MAX + 1
    assert told[-1] == "and 7 more"
