"""The matrix: every scenario under every SDK. One test is one cell."""

from typing import Any

import pytest

from tests.clients.conftest import Column
from tests.clients.expected import CANCELLED_WITHIN_S, ROWS, Logged, Row, mismatches
from tests.clients.sdks import SDKS, Ran, Sdk

pytestmark = pytest.mark.clients

CELLS = [
    pytest.param(sdk, row, id=f"{sdk.name}-{row.scenario.replace(' ', '-')}")
    for sdk in SDKS
    for row in ROWS
    if sdk.name in row.sdks
]


@pytest.mark.parametrize(("sdk", "row"), CELLS)
def test_scenario(sdk: Sdk, row: Row, column: Column) -> None:
    ran = column(sdk)
    facts = ran.facts[row.scenario]
    assert "crash" not in facts, facts["crash"]
    assert mismatches(row.facts, facts) == []
    if row.logged is not None:
        _is_logged(row.logged, facts, ran)
    for model, times in (row.upstream or {}).items():
        assert ran.asked.get(model) == times, f"the upstream was asked {ran.asked.get(model)} times for {model}"


def _is_logged(logged: Logged, facts: dict[str, Any], ran: Ran) -> None:
    """One request, one exchange: an SDK that sent it again would show here."""
    found = [one for one in ran.exchanges if (one["asked"], one["api"]) == (logged.asked, logged.api)]
    assert len(found) == 1, f"{len(found)} exchanges for {logged.asked}"
    (record,) = found
    wanted = {"outcome": logged.outcome, "code": logged.code, "attempts": logged.attempts}
    assert mismatches(wanted, record) == []
    shown = (facts.get("error") or {}).get("request_id") or facts.get("request_id")
    assert shown in (None, record["id"]), "the id that the SDK shows is the log's"
    if "left" in facts:
        assert record["ts"] - facts["left"] <= CANCELLED_WITHIN_S


@pytest.mark.parametrize("sdk", SDKS, ids=[sdk.name for sdk in SDKS])
def test_column(sdk: Sdk, column: Column) -> None:
    """The column is that SDK's, each of its scenarios has a row, and Penstock met no bug."""
    ran = column(sdk)
    assert ran.version.split(".")[0] == sdk.major
    assert ran.bugs == []
    assert set(ran.facts) == {row.scenario for row in ROWS if sdk.name in row.sdks}


@pytest.mark.parametrize("sdk", SDKS, ids=[sdk.name for sdk in SDKS])
def test_what_may_be_sent_again_is_sent_again_once(sdk: Sdk, column: Column) -> None:
    found = [one for one in column(sdk).exchanges if one["asked"] == "sim/once:429:retried"]
    assert [(one["outcome"], one.get("client_retry", 0)) for one in found] == [("failed", 0), ("ok", 1)]
