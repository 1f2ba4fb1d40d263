"""What `cache` of a route and of `defaults` comes to."""

from pathlib import Path

import pytest

from proxy.config.resolve import load, parse, with_demo
from proxy.config.scalars import TTL_S_MAX
from proxy.core.cache_policy import CachePolicy
from proxy.core.routing import Plan, plan
from proxy.stores.redis.cache import KEPT_MS_MAX
from proxy.terms import Api, RouteName

KEPT = CachePolicy(3600.0)


def policy(defaults: str, own: str) -> CachePolicy | None:
    """That of a route, as a plan of it has it."""
    table = parse(f"defaults: {{{defaults}}}\nroutes: {{r: {{tiers: [ollama/m]{own}}}}}", "routes.yaml", {})
    table = with_demo(table, "http://127.0.0.1:1/v1")
    planned = plan(table, "r", Api.CHAT)
    assert isinstance(planned, Plan)
    assert planned.cache == table.routes[RouteName("r")].cache
    assert table.routes[RouteName("demo")].cache is None
    return planned.cache


@pytest.mark.parametrize(
    ("defaults", "own", "expected"),
    [
        ("", "", None),
        ("cache: off", "", None),
        ("cache: false", ", cache: false", None),
        ("", ", cache: {ttl: 1h}", KEPT),
        ("cache: off", ", cache: {ttl: 1h}", KEPT),
        ("cache: {ttl: 1h}", "", KEPT),
        ("cache: {ttl: 1h}", ", cache: off", None),
        ("cache: {ttl: 1h}", ", cache: false", None),
        (
            "cache: {ttl: 1h, tool_calls: true}",
            ", cache: {ttl: 2d, replay: paced}",
            CachePolicy(172_800.0, False, True),
        ),
        ("cache: {ttl: 500ms, tool_calls: true, replay: immediate}", "", CachePolicy(0.5, True, False)),
        ("cache: {ttl: 30d}", "", CachePolicy(TTL_S_MAX)),
    ],
)
def test_a_route_has_its_own_or_what_the_defaults_say(defaults: str, own: str, expected: CachePolicy | None) -> None:
    assert policy(defaults, own) == expected


def test_a_target_that_is_named_directly_is_not_cached() -> None:
    table = parse("defaults: {cache: {ttl: 1h}}", "routes.yaml", {"OLLAMA_URL": "http://localhost:1"})
    planned = plan(table, "ollama/m", Api.CHAT)
    assert isinstance(planned, Plan)
    assert planned.cache is None


def test_the_shipped_file_keeps_answers_of_one_route() -> None:
    table = load(Path(__file__).parents[2] / "config/routes.yaml", {})
    kept = {name: route.cache for name, route in table.routes.items() if route.cache is not None}
    assert kept == {"qualification": CachePolicy(3600.0)}


def test_what_may_be_written_is_what_a_store_keeps() -> None:
    assert TTL_S_MAX * 1000 == KEPT_MS_MAX
