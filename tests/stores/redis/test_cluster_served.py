"""`penstock serve` and `penstock doctor` with a Cluster as their Redis, signed in to."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.cli import doctor_facts
from proxy.core.checkup import Level
from tests.conftest import Start
from tests.gateway import get, send
from tests.server.process import ADMIN_KEY, config_file, serving
from tests.stores.redis.test_connection import soon
from tests.valkey import ValkeyCluster, paused

PASSWORD = "s3cret-canary"
CHAT = "/v1/chat/completions"
ROUTES = """
providers: {{sim: {{like: vllm, base_url: "{url}"}}}}
routes: {{plain: {{tiers: [sim/plain], cache: {{ttl: 1m}}}}}}
"""


@pytest.fixture
def signed(shared_cluster: ValkeyCluster) -> Iterator[str]:
    """The URL of an empty Cluster, with a password."""
    shared_cluster.flush()
    for node in shared_cluster.masters:
        node.command("ACL", "SETUSER", "penstock", "on", f">{PASSWORD}", "~penstock:*", "~{penstock:*", "&*", "+@all")
    yield shared_cluster.url_with(f"penstock:{PASSWORD}@")
    for node in shared_cluster.masters:
        node.command("ACL", "DELUSER", "penstock")


def keys(cluster: ValkeyCluster) -> set[str]:
    """What begins the keys that there are: the stores'."""
    found = [key for node in cluster.masters for key in node.command("KEYS", "*")]
    return {key[: key.index("}") + 1] for key in found if "}" in key}


async def test_a_served_process(tmp_path: Path, signed: str, shared_cluster: ValkeyCluster, upstream_url: str) -> None:
    config = config_file(tmp_path, ROUTES.format(url=upstream_url))
    environ = {"REDIS_URL": signed, "PENSTOCK_DATA": str(tmp_path / "data")}
    with serving("--config", config, environ=environ) as (process, port, printed):
        body = json.dumps({"model": "plain", "messages": [{"role": "user", "content": "x"}]}).encode()
        assert [(await send(port, CHAT, body)).status for _ in range(3)] == [200] * 3
        await soon(lambda: "penstock:{cache}" in keys(shared_cluster))
        assert (await get(port, "/health")).json()["stores"] == {"redis": {"state": "up"}}
        process.terminate()
        assert process.stdout is not None
        said = printed + process.stdout.read()
    assert PASSWORD not in said
    assert "redis: away" not in said
    assert '"bug' not in said


async def test_a_node_that_hangs_is_in_health_and_in_the_log(
    start: Start, signed: str, shared_cluster: ValkeyCluster, upstream_url: str
) -> None:
    gateway = await start(ROUTES.format(url=upstream_url), admin_key=ADMIN_KEY, redis_url=signed)
    assert (await gateway.ask("plain")).status == 200
    with paused(shared_cluster.master_of("penstock:{cache}")):
        for number in range(10):
            assert (await gateway.ask("plain", seed=number)).status == 200
        assert (await get(gateway.port, "/health")).json()["stores"] == {"redis": {"state": "away"}}
    assert gateway.service._stores is not None
    redis = gateway.service._stores.redis
    assert redis is not None
    await soon(lambda: redis.state.up)
    assert redis.state.where == shared_cluster.url
    assert PASSWORD not in repr(redis.state)
    assert not gateway.log.bugs


async def doctor(url: str) -> tuple[set[Level], str]:
    findings = await doctor_facts.redis(url)
    told = "\n".join(one.told for one in findings)
    assert PASSWORD not in told
    return {one.level for one in findings}, told


async def test_doctor_names_it(signed: str, shared_cluster: ValkeyCluster) -> None:
    levels, told = await doctor(signed)
    assert levels == {Level.OK}
    assert f"Redis at {shared_cluster.url} takes writes" in told
    hung = shared_cluster.masters[2]
    with paused(hung):
        levels, told = await doctor(signed)
    assert levels == {Level.PROBLEM}
    assert f"Redis at {shared_cluster.url} does not serve: 127.0.0.1:{hung.port}: " in told
