"""The Helm chart, rendered and linted by Helm's own library: what Kubernetes gets."""

import re
from functools import cache
from typing import Any

import pytest
import yaml

from proxy.edge.paths import LIVE, READY
from proxy.server.settings import VARIABLES
from tests.deploy.parts import CHART, read_yaml, rendered

LEAST: dict[str, Any] = {"image": {"repository": "registry.example/penstock"}, "existingSecret": "penstock"}


@cache
def _least() -> dict[str, Any]:
    return objects(rendered({**LEAST, "routes": "routes: {}\n", "serviceMonitor": {"enabled": True}}))


def objects(told: dict[str, Any]) -> dict[str, Any]:
    """Kind to object; several services by name."""
    assert told["error"] is None
    found: dict[str, Any] = {}
    for text in told["manifests"].values():
        for one in yaml.safe_load_all(text):
            if isinstance(one, dict):
                found[one["kind"] if one["kind"] != "Service" else one["metadata"]["name"]] = one
    return found


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = _least()["StatefulSet"]["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (one,) = pod()["containers"]
    assert isinstance(one, dict)
    return one


def test_helm_has_nothing_to_say() -> None:
    report = rendered(LEAST)["lint"]
    assert report["errors"] == []
    assert [one for one in report["messages"] if one["severity"] > 1] == []


def test_what_is_there() -> None:
    kinds = {
        "StatefulSet",
        "ConfigMap",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceMonitor",
    }
    services = {"release-penstock", "release-penstock-admin", "release-penstock-pods"}
    assert set(_least()) == kinds | services


def test_s67_the_pod_is_hardened() -> None:
    assert pod()["automountServiceAccountToken"] is False
    assert pod()["enableServiceLinks"] is False
    context = pod()["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] >= 10000
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    own = container()["securityContext"]
    assert own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    for forbidden in ("hostNetwork", "hostPID", "hostIPC"):
        assert forbidden not in pod()
    assert container()["resources"]["limits"]["memory"]
    assert [one["mountPath"] for one in container()["volumeMounts"] if not one.get("readOnly")] == ["/data"]


def test_probes_ask_what_is_there() -> None:
    assert container()["livenessProbe"]["httpGet"]["path"] in LIVE
    assert container()["startupProbe"]["httpGet"]["path"] in LIVE
    assert container()["readinessProbe"]["httpGet"]["path"] in READY
    ports = {one["name"] for one in container()["ports"]}
    assert ports == {"http", "admin"}
    for name in ("livenessProbe", "startupProbe", "readinessProbe"):
        assert container()[name]["httpGet"]["port"] == "http"


@pytest.mark.parametrize("drain", [1, 60, 600])
def test_a_stop_waits_for_the_drain(drain: int) -> None:
    spec = objects(rendered({**LEAST, "drainSeconds": drain}))["StatefulSet"]["spec"]["template"]["spec"]
    (one,) = spec["containers"]
    assert one["args"] == ["serve", "--drain", f"{drain}s"]
    before_s = one["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > drain + before_s + 10


def test_secrets_are_references() -> None:
    assert container()["envFrom"] == [{"secretRef": {"name": "penstock"}}]
    named = {one["name"]: one for one in container()["env"]}
    for name in ("REDIS_URL", "DATABASE_URL", "PENSTOCK_ADMIN_KEY"):
        assert named[name]["valueFrom"]["secretKeyRef"] == {"name": "penstock", "key": name}
    assert "Secret" not in _least()
    assert set(named) <= set(VARIABLES)


def test_one_replica_needs_no_shared_stores() -> None:
    alone = objects(rendered({**LEAST, "replicas": 1, "autoscaling": {"enabled": False}}))
    (one,) = alone["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    assert {"REDIS_URL", "DATABASE_URL"} & {two["name"] for two in one["env"]} == set()
    assert alone["StatefulSet"]["spec"]["replicas"] == 1
    assert "HorizontalPodAutoscaler" not in alone


def test_the_autoscaler_and_the_budget_mean_the_pods() -> None:
    target = _least()["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    stateful = _least()["StatefulSet"]
    assert (target["kind"], target["name"]) == ("StatefulSet", stateful["metadata"]["name"])
    assert "replicas" not in stateful["spec"], "the autoscaler's to say"
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    selectors = [
        stateful["spec"]["selector"]["matchLabels"],
        _least()["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        _least()["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        *(_least()[name]["spec"]["selector"] for name in _least() if name.startswith("release-")),
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)


def test_who_may_come_and_where_pods_may_go() -> None:
    spec = _least()["NetworkPolicy"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    peers = {one["ports"][0]["port"]: one["from"] for one in spec["ingress"]}
    assert set(peers) == {"http", "admin"}
    assert peers["admin"] != [{"namespaceSelector": {}}]
    assert all(one["from"] for one in spec["ingress"]), "no peers would mean everybody"
    excepted = [network for two in spec["egress"][1]["to"] for network in two["ipBlock"]["except"]]
    assert "169.254.0.0/16" in excepted


def test_the_image_by_its_digest() -> None:
    digest = f"sha256:{'0' * 64}"
    image = {"image": {"repository": "registry.example/penstock", "digest": digest}}
    spec = objects(rendered({**LEAST, **image}))["StatefulSet"]["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == f"registry.example/penstock@{digest}"
    version = read_yaml(CHART / "Chart.yaml")["appVersion"]
    assert container()["image"] == f"registry.example/penstock:{version}"


def test_the_chart_is_of_this_version() -> None:
    from proxy import __version__  # noqa: PLC0415 - beside what it is compared with

    assert read_yaml(CHART / "Chart.yaml")["appVersion"] == __version__


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "/image/repository"),
        ({**LEAST, "existingSecret": ""}, "/existingSecret"),
        ({**LEAST, "env": {"OPENAI_API_KEY": "sk"}}, "invalid propertyName 'OPENAI_API_KEY'"),
        ({**LEAST, "env": {"DATABASE_URL": "postgresql://"}}, "invalid propertyName 'DATABASE_URL'"),
        ({**LEAST, "imagine": 1}, "imagine"),
        ({**LEAST, "networkPolicy": {"monitoring": []}}, "/networkPolicy/monitoring"),
        ({**LEAST, "adminPort": 4020}, "/adminPort"),
    ],
)
def test_values_that_are_refused(values: dict[str, Any], told: str) -> None:
    error = rendered(values)["error"]
    assert error is not None
    assert told in error


def test_routes_go_to_the_pod_and_a_change_renews_it() -> None:
    one, two = (objects(rendered({**LEAST, "routes": text})) for text in ("routes: {}\n", "routes: {a: {}}\n"))
    assert two["ConfigMap"]["data"]["routes.yaml"] == "routes: {a: {}}\n"
    sums = {x["StatefulSet"]["spec"]["template"]["metadata"]["annotations"]["checksum/routes"] for x in (one, two)}
    assert len(sums) == 2
    assert re.fullmatch("[0-9a-f]{64}", sums.pop())
