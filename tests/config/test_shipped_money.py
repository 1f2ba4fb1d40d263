"""The file that ships, with the real price list: every target of every route can answer within its cost tier."""

import time
from pathlib import Path

import pytest

from proxy.config.pricing import with_price_list
from proxy.config.resolve import load
from proxy.core.afford import NotAfforded, afford
from proxy.core.cost import Bounds
from proxy.core.routing import RoutingTable, configured
from proxy.terms import DEFAULT_ACCOUNT

SHIPPED = Path(__file__).parents[2] / "config/routes.yaml"
NAMED = {
    "qualification": "ultra_economy",
    "classification": "ultra_economy",
    "code_generation": "economy",
    "conversation": "standard",
    "summarization": "standard",
    "deep_analysis": "premium",
    "long_context": "premium",
    "web_research": "premium",
    "expert": "enterprise",
}


@pytest.fixture(scope="module")
def table() -> RoutingTable:
    made = load(SHIPPED, {})
    return with_price_list(made, {target.provider.id for target in configured(made)})


def unaffordable(table: RoutingTable, prompt_tokens: int) -> dict[str, list[str]]:
    """The targets of each route that a prompt of that size is too dear at."""
    at_s = int(time.time())
    return {
        route.name: [
            target.name
            for target in route.targets
            if isinstance(
                afford(table.pricing.terms(route.name, target.provider.id, target.model), Bounds(prompt_tokens), at_s),
                NotAfforded,
            )
        ]
        for route in table.routes.values()
    }


def test_the_cost_tiers_are_those_of_the_contract(table: RoutingTable) -> None:
    found = {name: rules.cost_tier for name, rules in table.pricing.routes.items() if rules.cost_tier is not None}
    assert found == NAMED
    assert list(table.pricing.cost_tiers.values()) == [10**5, 10**6, 10**7, 5 * 10**7, 5 * 10**8]


@pytest.mark.parametrize("prompt_tokens", [1, 1000, 2000])
def test_every_target_can_answer_within_its_tier(table: RoutingTable, prompt_tokens: int) -> None:
    assert [targets for targets in unaffordable(table, prompt_tokens).values() if targets] == []


def test_everybody_pays_from_the_shipped_budget(table: RoutingTable) -> None:
    (payer,) = table.budgets.payers_of(DEFAULT_ACCOUNT)
    assert [(limit.period.value, limit.cap_nanousd) for limit in payer.limits] == [
        ("daily", 100 * 10**9),
        ("monthly", 1000 * 10**9),
    ]
    assert [limit.alert_nanousd for limit in payer.limits] == [80 * 10**9, 800 * 10**9]
    assert payer.zone.key == "UTC"
    assert (table.alerts, table.baseline, table.ledger_keep_days) == ((), None, None)


def test_the_examples_in_its_comments_are_valid(table: RoutingTable, tmp_path: Path) -> None:
    """What is commented out at its end, from the accounts on, once it is taken in."""
    text = SHIPPED.read_text()
    start = text.index("# accounts:")
    lines = [line.removeprefix("# ") if ":" in line.partition("#")[2] else line for line in text[start:].splitlines()]
    switched_on = "\n".join(line for line in lines if not line.startswith(("Who ", "The money ", "An account ")))
    path = tmp_path / "routes.yaml"
    path.write_text(text[:start] + switched_on + "\n")
    hook = "https://hooks.example.com/x"
    made = load(path, {"ALERT_URL": hook, "ALERT_SECRET": "x", "SLACK_WEBHOOK_URL": hook})
    assert list(made.budgets.accounts) == ["acme"]
    assert len(made.alerts) == 3
    assert made.pricing.currency.code == "CAD"
    assert made.baseline is not None
    assert made.baseline.name == "openai/gpt-4o"
    assert made.pricing.routes == table.pricing.routes
