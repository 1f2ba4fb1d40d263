"""Prometheus' rules and Grafana's dashboard: they parse, they hold, and they name metrics and labels that there are."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.parts import DEPLOY, SERIES, read_yaml, tool

PROMETHEUS = DEPLOY / "prometheus"
RULES: list[dict[str, Any]] = [
    rule for group in read_yaml(PROMETHEUS / "rules.yml")["groups"] for rule in group["rules"]
]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "penstock.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
_BUILT_IN = frozenset({"up", "ALERTS", "ALERTS_FOR_STATE"})


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for one in DASHBOARD["annotations"]["list"]:
        yield one["name"], one["expr"]


ALL = list(expressions())


def named(expression: str) -> set[str]:
    """The series that an expression names."""
    found = set(re.findall(r"\b((?:penstock|gen_ai)_[a-z_]+)\s*(?=[{\[)\s><=]|$)", expression))
    return found - {"gen_ai_request_model", "gen_ai_token_type"}


@pytest.mark.parametrize(("where", "expression"), ALL, ids=[where for where, _ in ALL])
def test_every_series_and_label_is_one_that_there_is(where: str, expression: str) -> None:
    series = named(expression)
    recorded = set(re.findall(r"\bpenstock:[a-z0-9_:]+", expression))
    assert series or recorded or re.match(r"(up|ALERTS)\{", expression), where
    assert series <= set(SERIES), series - set(SERIES)
    assert recorded <= RECORDED
    known = {label for name in series for label in SERIES[name]}
    used = {
        label
        for group in re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", expression)
        for label in re.split(r",\s*", group)
    }
    for name, selector in re.findall(r"(\w+)\{([^}]*)\}", expression):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        assert labels <= SERIES.get(name, frozenset({"job", "instance", "alertname", "alertstate"})), (name, labels)
    if series:
        assert used <= known, used - known


def test_counters_are_read_as_rates() -> None:
    for where, expression in ALL:
        for name in re.findall(r"\b(penstock_\w+_(?:total|bucket|sum|count))\b", expression):
            assert re.search(rf"(?:rate|increase)\({name}(?:\{{[^}}]*\}})?\[", expression), where


def test_every_metric_is_watched() -> None:
    seen = {name for _, expression in ALL for name in named(expression)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in SERIES}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in seen}
    assert families == shown


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["action"]


def test_every_alert_is_tested() -> None:
    tests = read_yaml(PROMETHEUS / "rules_test.yml")["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert fired == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "rules.yml"),
        ("test", "rules", "rules_test.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ],
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [tool("promtool"), *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_scrape_goes_where_metrics_are() -> None:
    (job,) = read_yaml(PROMETHEUS / "prometheus.yml")["scrape_configs"]
    compose = read_yaml(DEPLOY / "compose.yaml")["services"]
    port = compose["penstock-1"]["environment"]["PENSTOCK_ADMIN_PORT"]
    targets = [f"{name}:{port}" for name in compose if name.startswith("penstock-")]
    assert job["static_configs"] == [{"targets": targets}]
    assert job["job_name"] == "penstock"
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{compose['prometheus']['secrets'][0]}"


def test_panels_are_laid_out_without_overlapping() -> None:
    taken: set[tuple[int, int]] = set()
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_grafana_is_given_the_dashboard_and_its_source() -> None:
    (source,) = read_yaml(DEPLOY / "grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read_yaml(DEPLOY / "grafana/provisioning/dashboards/penstock.yml")["providers"]
    mounts = read_yaml(DEPLOY / "compose.yaml")["services"]["grafana"]["volumes"]
    assert f"./grafana/penstock.json:{provider['options']['path']}/penstock.json:ro" in mounts
