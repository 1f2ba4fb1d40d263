"""`deploy/compose.yaml`: hardened, without a default password, and complete."""

import re
from typing import Any

import pytest

from proxy.core import duration
from proxy.providers.rows import CATALOGUE
from proxy.server.settings import VARIABLES
from tests.deploy.parts import DEPLOY, read_yaml

FILE = DEPLOY / "compose.yaml"
TEXT = FILE.read_text()
COMPOSE: dict[str, Any] = read_yaml(FILE)
SERVICES: dict[str, Any] = COMPOSE["services"]


def test_what_is_there() -> None:
    wanted = {"penstock-1", "penstock-2", "balancer", "valkey", "postgres", "ollama", "prometheus", "grafana"}
    assert set(SERVICES) == wanted


def test_no_password_has_a_default_and_every_variable_is_in_the_example() -> None:
    required = set(re.findall(r"\$\{(\w+):\?", TEXT))
    listed = re.findall(r"^(\w+)=(\S*)", (DEPLOY / ".env.example").read_text(), re.MULTILINE)
    assert {name for name, _ in listed} == required
    assert {value for _, value in listed} <= {"", "#"}
    optional = set(re.findall(r"\$\{(\w+):-", TEXT))
    assert {name for name in optional if not name.endswith("_IMAGE")} == {"PENSTOCK_PUBLISHED_PORT"}
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", TEXT)) == required | optional
    secrets = re.findall(r"(?:PASSWORD|_KEY): (\S+)", TEXT)
    assert secrets
    assert all(value.startswith("${") for value in secrets)


@pytest.mark.parametrize("name", SERVICES)
def test_s67_services_are_hardened(name: str) -> None:
    one = SERVICES[name]
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    if name != "ollama":  # which wants to write to its root, and to be it
        assert one["read_only"] is True
        user, group = one["user"].split(":")
        assert int(user) > 0
        assert int(group) >= 0
    for forbidden in ("privileged", "network_mode", "pid", "ipc", "cap_add", "devices"):
        assert forbidden not in one
    image = re.fullmatch(r"\$\{\w+_IMAGE:-(\S+)\}", one["image"])
    assert image, one["image"]
    assert re.search(r":[\w.-]+$", image.group(1))
    assert not image.group(1).endswith(":latest")


@pytest.mark.parametrize("name", SERVICES)
def test_only_this_machine_reaches_what_is_published(name: str) -> None:
    ports = SERVICES[name].get("ports", [])
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert bool(ports) == (name in ("balancer", "grafana"))


def test_the_two_are_the_same_and_have_a_journal_each() -> None:
    one, two = SERVICES["penstock-1"], SERVICES["penstock-2"]
    assert {**one, "volumes": None} == {**two, "volumes": None}
    assert one["volumes"] != two["volumes"]
    known = {
        *VARIABLES,
        "PENSTOCK_API_KEY",
        *(name for row in CATALOGUE.values() for name in row.key_vars),
        "OLLAMA_URL",
    }
    assert set(one["environment"]) <= known
    assert one["environment"]["PENSTOCK_ADMIN_HOSTS"].split(",") == ["penstock-1", "penstock-2"]


def test_a_stop_waits_for_the_drain() -> None:
    one = SERVICES["penstock-1"]
    drain_s = duration.parse(one["command"][one["command"].index("--drain") + 1])
    grace_s = duration.parse(one["stop_grace_period"])
    assert drain_s is not None
    assert grace_s is not None
    assert grace_s > drain_s + 10


def test_stores_are_on_the_inner_network_alone() -> None:
    assert COMPOSE["networks"]["back"] == {"internal": True}
    for name in ("valkey", "postgres"):
        assert SERVICES[name]["networks"] == ["back"]


def test_every_file_and_volume_is_there() -> None:
    for one in SERVICES.values():
        for volume in one.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume


def test_the_balancers_environment_is_what_its_file_reads() -> None:
    read = set(re.findall(r"\$\{(\w+)\}", (DEPLOY / "haproxy/haproxy.cfg").read_text()))
    given = SERVICES["balancer"]["environment"]
    assert set(given) == read
    assert {given["PENSTOCK_1"], given["PENSTOCK_2"]} == {"penstock-1:4020", "penstock-2:4020"}
