"""Tools that people use, each in its own process, pointed at `penstock serve` by the one setting that it has for that."""

import pytest

from tests.clients.conftest import Once
from tests.clients.expected import Row
from tests.clients.script import Ran, run_script
from tests.clients.stage import ROOT, stage
from tests.clients.tools.rows import CONFIG, EXAMPLES, TOOLS, Tool
from tests.clients.verdict import check

pytestmark = pytest.mark.clients

CELLS = [
    pytest.param(tool, row, id=f"{tool.name}-{row.scenario.replace(' ', '-')}") for tool in TOOLS for row in tool.rows
]
NAMES = [tool.name for tool in TOOLS]


class Tools:
    """Runs a tool's script when it is first asked for."""

    def __init__(self, factory: pytest.TempPathFactory, once: Once) -> None:
        self._factory, self._once = factory, once

    def ran(self, tool: Tool) -> Ran:
        return self._once(tool.name, lambda: self._run(tool))

    def _run(self, tool: Tool) -> Ran:
        command = tool.command()
        with stage(self._factory.mktemp(tool.name), config=CONFIG) as on:
            # A home of its own: no tool finds the settings of whoever runs this, nor leaves any.
            environ = {"HOME": str(on.output.parent), "PYTHONPATH": str(ROOT), **tool.environ(on)}
            return run_script(tool.name, command, environ, on)


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Tools:
    return Tools(tmp_path_factory, once)


@pytest.mark.parametrize(("tool", "row"), CELLS)
def test_scenario(tool: Tool, row: Row, tools: Tools) -> None:
    check(row, tools.ran(tool))


@pytest.mark.parametrize("tool", TOOLS, ids=NAMES)
def test_every_scenario_has_a_row_and_penstock_met_no_bug(tool: Tool, tools: Tools) -> None:
    ran = tools.ran(tool)
    assert set(ran.facts) == {row.scenario for row in tool.rows}
    assert ran.bugs == []


def test_a_row_of_each_kind_is_there() -> None:
    """What every tool has to show: the documents' example, an error in words, and a broken stream taken for what it is."""
    for tool in TOOLS:
        scenarios = " ".join(row.scenario for row in tool.rows)
        assert all(kind in scenarios for kind in ("example", "404", "cut")), tool.name
        assert (EXAMPLES / tool.example).is_file()


def test_the_locks_pin_every_package_by_hash() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        text = lock.read_text(encoding="utf-8")
        pinned = [block for block in text.split("\n") if "==" in block and not block.startswith(" ")]
        assert pinned
        assert all(block.endswith("\\") for block in pinned), lock.name
