"""The workflows for n8n: what they send is answered, and what they make of it is what they promise.

n8n itself (1 GB) is not installed: `n8n.mjs` carries out the kinds of nodes that they have, by n8n's rules for expressions.
"""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.gateway import Gateway

pytestmark = pytest.mark.clients
WORKFLOWS = Path("docs/examples/n8n")
CONFIG = """
providers: {{sim: {{like: vllm, base_url: "{url}", price: {{"*": {{input: 1, output: 1}}}}}}}}
routes:
  qualification: {{tiers: [sim/json]}}
  content_generation: {{tiers: [sim/m]}}
  verification: {{tiers: [sim/m]}}
"""


async def ran(gateway: Gateway, workflow: str, first: object = None) -> Any:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = Path(__file__).with_name("n8n.mjs")
    process = await asyncio.create_subprocess_exec(
        *(node, script, WORKFLOWS / workflow, gateway.url, json.dumps(first)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def test_a_lead_is_scored(start: Start, upstream: Simulator, upstream_url: str) -> None:
    gateway = await start(CONFIG.format(url=upstream_url))
    outputs = await ran(gateway, "lead-qualification.json", {"company": "Acme", "seats": 400, "note": 'says "soon"'})
    (answer,) = outputs["Answer"]
    assert set(answer) == {"score", "reason", "model", "cost_usd"}
    assert float(answer["cost_usd"]) > 0
    (row,) = await gateway.booked(1)
    assert (row.route, row.outcome) == ("qualification", "ok")
    assert "Acme" in str(upstream.requests)


async def test_a_batch_is_written_and_checked(start: Start, upstream_url: str) -> None:
    gateway = await start(CONFIG.format(url=upstream_url))
    outputs = await ran(gateway, "batch-content.json")
    assert len(outputs["Next"]) == 3
    assert all(set(one) == {"topic", "text", "doubts", "cost_usd"} for one in outputs["Next"])
    rows = await gateway.booked(6)
    assert [row.route for row in rows] == ["content_generation", "verification"] * 3
    spent = sum(row.cost_nanousd for row in rows) / 1e9
    assert abs(sum(one["cost_usd"] for one in outputs["Next"]) - spent) < 1e-9


@pytest.mark.parametrize("workflow", sorted(WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_a_workflow_is_whole_and_holds_no_credential(workflow: Path) -> None:
    made = json.loads(workflow.read_text())
    names = [node["name"] for node in made["nodes"]]
    assert len(set(names)) == len(names) == len({node["id"] for node in made["nodes"]})
    targets = {to["node"] for one in made["connections"].values() for outputs in one["main"] for to in outputs}
    assert targets | made["connections"].keys() == set(names)
    for node in made["nodes"]:
        assert set(node.get("credentials", {}).get("httpHeaderAuth", {})) <= {"id", "name"}
