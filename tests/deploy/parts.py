"""What the tests of `deploy/` look at, and the tools that they look with: of a lock of their own, or of this machine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.clients.install import python_of

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
CHART: Final = DEPLOY / "helm" / "penstock"

# The metrics that Penstock tells, with their labels: what rules and dashboards may name.
_ALWAYS: Final = frozenset({"instance", "job"})
COUNTERS: Final = {
    "penstock_requests_total": {"route", "api", "status", "outcome"},
    "penstock_attempts_total": {"provider", "outcome"},
    "penstock_stream_endings_total": {"provider", "ending"},
    "penstock_cache_requests_total": {"route", "state"},
    "penstock_cost_usd_total": {"provider", "route"},
    "penstock_tokens_total": {"provider", "kind"},
    "penstock_limited_total": {"limit"},
    "penstock_config_reloads_total": {"result"},
}
HISTOGRAMS: Final = {
    "penstock_request_seconds": {"route", "api"},
    "penstock_first_event_seconds": {"route", "provider"},
    "penstock_overhead_seconds": set[str](),
    "gen_ai_client_token_usage": {"gen_ai_request_model", "gen_ai_token_type"},
    "gen_ai_client_operation_duration_seconds": {"gen_ai_request_model"},
}
GAUGES: Final = {
    "penstock_breaker_open": {"subject"},
    "penstock_budget_left_usd": {"subject", "period"},
    "penstock_store_up": {"store"},
    "penstock_store_mode": {"function", "mode"},
    "penstock_outbox_rows": set[str](),
    "penstock_exchanges_running": set[str](),
    "penstock_config_reload_failed": set[str](),
    "penstock_build_info": {"version"},
}
SERIES: Final[dict[str, frozenset[str]]] = {
    **{name: _ALWAYS | labels for name, labels in (COUNTERS | GAUGES).items()},
    **{
        f"{name}_{part}": _ALWAYS | labels | ({"le"} if part == "bucket" else set())
        for name, labels in HISTOGRAMS.items()
        for part in ("bucket", "sum", "count")
    },
}


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def tool(name: str) -> str:
    """A program of this machine; where it is not, the test is skipped and says what was not tested."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on PATH, so what it would say of deploy/ is not tested")
    return found


def locked_python() -> Path:
    """The Python beside Helm's library, HAProxy and hadolint, which are there for one platform."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("Helm's library, HAProxy and hadolint come in wheels for Linux on x86-64 alone: not tested here")
    return python_of("deploy")


def rendered(values: dict[str, Any]) -> dict[str, Any]:
    """What Helm's own library makes of the chart: manifests, lint report, or the error."""
    done = subprocess.run(
        [locked_python(), Path(__file__).with_name("render.py"), CHART],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told
