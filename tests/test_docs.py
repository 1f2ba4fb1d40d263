"""What the documents say is what the code does."""

import re
from pathlib import Path

import pytest

from proxy.cli.announce import announcement
from proxy.config.resolve import parse
from proxy.core.failure import TABLE
from proxy.providers.rows import CATALOGUE

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(block, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", document.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_yaml_example_is_valid(example: str) -> None:
    parse(example, "example.yaml", {})


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "ARCHITECTURE.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / link).exists(), link


def test_the_architecture_names_every_module_of_the_phases() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for module in (ROOT / "proxy/phases").glob("*.py"):
        assert module.stem == "__init__" or f"`{module.stem}`" in text, module.stem


def test_the_environment_example_lists_every_variable() -> None:
    listed = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    templates = " ".join(row.base_url for row in CATALOGUE.values())
    read = {name for row in CATALOGUE.values() for name in row.key_vars} | set(re.findall(r"\$\{([A-Z_]+)", templates))
    read |= {"PENSTOCK_CONFIG", "PENSTOCK_HOST", "PENSTOCK_PORT"}
    assert listed == read


def test_every_code_of_the_failure_table_is_documented() -> None:
    text = (ROOT / "docs/wire.md").read_text()
    codes = {row.code for row in TABLE.values() if row.status is None or row.status < 499 or row.status > 499}
    missing = {code for code in codes if f"`{code}`" not in text}
    assert missing <= {"content_refused", "overloaded"}, missing


def test_the_readme_shows_the_line_that_start_up_prints() -> None:
    table = parse("routes: {general: {tiers: [ollama/m]}}", "routes.yaml", {"OLLAMA_URL": "http://localhost:1"})
    printed = announcement(table, "http://127.0.0.1:4020/v1")
    (curl,) = re.findall(r"curl -sN .*?\}'", printed)
    readme = re.sub(r"\s*\\\n\s*", " ", (ROOT / "README.md").read_text())
    assert curl in readme
    assert "export OPENAI_BASE_URL=http://127.0.0.1:4020/v1 OPENAI_API_KEY=anything" in readme
    assert "export OPENAI_BASE_URL=http://127.0.0.1:4020/v1 OPENAI_API_KEY=anything" in printed
