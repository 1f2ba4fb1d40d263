"""The matrix: every scenario under every SDK. One test is one cell."""

import pytest

from tests.clients.conftest import Column
from tests.clients.expected import ROWS, Row
from tests.clients.sdks import SDKS, Sdk
from tests.clients.verdict import check

pytestmark = pytest.mark.clients

CELLS = [
    pytest.param(sdk, row, id=f"{sdk.name}-{row.scenario.replace(' ', '-')}")
    for sdk in SDKS
    for row in ROWS
    if sdk.name in row.sdks
]


@pytest.mark.parametrize(("sdk", "row"), CELLS)
def test_scenario(sdk: Sdk, row: Row, column: Column) -> None:
    check(row, column(sdk))


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
