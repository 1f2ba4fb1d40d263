"""What the documents say is what the code does."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli.announce import announcement
from proxy.cli.main import main
from proxy.config.resolve import parse
from proxy.core.failure import TABLE
from proxy.edge.admin.table import ENDPOINTS
from proxy.providers.rows import CATALOGUE
from proxy.server.settings import VARIABLES, Settings
from tests.server.process import config_file, serving

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A channel whose address is not there is an error.
ALERTED = {
    "ALERT_URL": "https://alerts.example.com/penstock",
    "ALERT_SECRET": "s",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.example/services/x",
    "SMTP_USER": "u",
    "SMTP_PASSWORD": "p",
}
EXAMPLES = [
    pytest.param(block, id=f"{document.name}-{number}")
    for document in DOCUMENTS
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", document.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_yaml_example_is_valid(example: str) -> None:
    parse(example, "example.yaml", ALERTED)


def test_the_tools_are_shown_by_the_files_that_are_run() -> None:
    """`docs/examples` is what `tests/clients` runs; the page shows those files, whole, and no others."""
    files = sorted(path for path in (ROOT / "docs/examples").iterdir() if path.is_file())
    shown = re.findall(r"```\w+\n(.*?)```", (ROOT / "docs/tools.md").read_text(), re.DOTALL)
    assert sorted(shown) == sorted(path.read_text() for path in files)
    run = "".join(path.read_text() for path in (ROOT / "tests/clients").rglob("*.py"))
    assert [path.name for path in files if path.name not in run] == []


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
    assert listed == read | set(VARIABLES)


def test_what_the_environment_example_sets_is_what_counts_without_it() -> None:
    lines = re.findall(
        r"^(PENSTOCK_[A-Z_]+|REDIS_URL|DATABASE_URL|OTEL_EXPORTER_OTLP_ENDPOINT|SENTRY_DSN)=(\S*)\s+#",
        (ROOT / ".env.example").read_text(),
        re.MULTILINE,
    )
    assert [name for name, _ in lines] == list(VARIABLES)
    given = Settings.of(dict(lines))
    assert given == replace(Settings(), config=Path("config/routes.yaml"))


def test_the_operators_page_lists_every_admin_endpoint() -> None:
    listed = re.findall(r"^\| `([A-Z]+) (/\S+)` \|", (ROOT / "docs/operating.md").read_text(), re.MULTILINE)
    assert listed == [(one.method, one.path) for one in ENDPOINTS]


def test_the_operators_examples_run(tmp_path: Path) -> None:
    """Each line, against a server that made its own key."""
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/operating.md").read_text(), re.DOTALL)
    environ = {"PENSTOCK_ADMIN_KEY": "", "PENSTOCK_DATA": str(tmp_path / "data")}
    config = config_file(tmp_path, "routes: {general: {tiers: [openai/gpt-4o-mini]}}")
    with serving("--config", config, "--demo", environ=environ) as (_, port, _):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        for line in block.splitlines():
            ran = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", line.replace("4020", str(port))],
                capture_output=True,
                text=True,
                check=False,
                cwd=tmp_path,
                env={"PATH": path, "PENSTOCK_PORT": str(port)},
            )
            assert (ran.returncode, ran.stderr) == (0, ""), line
            assert "demo" in ran.stdout or config in ran.stdout


def test_the_commands_examples_run(tmp_path: Path) -> None:
    """Each line, in a directory with the file that is shown, against a server that made its own key."""
    text = (ROOT / "docs/commands.md").read_text()
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    (questions,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (tmp_path / "questions.jsonl").write_text(questions)
    (tmp_path / "questions.txt").write_text("How high is the water?\n")
    environ = {"PENSTOCK_ADMIN_KEY": "", "PENSTOCK_DATA": str(tmp_path / "data")}
    config = config_file(tmp_path, "routes: {general: {tiers: [openai/gpt-4o-mini]}}")
    with serving("--config", config, "--demo", environ=environ) as (_, port, _):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        for line in block.splitlines():
            ran = subprocess.run(
                shlex.split(line),
                capture_output=True,
                text=True,
                check=False,
                cwd=tmp_path,
                env={"PATH": path, "PENSTOCK_PORT": str(port), "PENSTOCK_CONFIG": config},
            )
            assert (ran.returncode, ran.stderr) == (0, ""), (line, ran.stdout)


def test_the_page_on_deploying_names_what_is_there() -> None:
    text = (ROOT / "docs/deploying.md").read_text()
    for name in re.findall(r"deploy/[\w./-]+\w", text):
        assert (ROOT / name).exists() or name in ("deploy/.env", "deploy/providers.env"), name


def test_the_examples_of_keys_run(tmp_path: Path) -> None:
    """The whole block in one shell, against a server that made its own admin key and pepper."""
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/keys.md").read_text(), re.DOTALL)
    environ = {"PENSTOCK_ADMIN_KEY": "", "PENSTOCK_PEPPER": "", "PENSTOCK_DATA": str(tmp_path / "data")}
    config = config_file(tmp_path, "routes: {general: {tiers: [openai/gpt-4o-mini]}}")
    with serving("--config", config, "--demo", environ=environ) as (_, port, _):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        ran = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", block.replace("4020", str(port))],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={"PATH": path, "PENSTOCK_PORT": str(port)},
        )
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"psk-[0-9A-Za-z]{63}\n", (tmp_path / "search.key").read_text())
    assert "nightly search" in ran.stdout
    assert "Revoked: " in ran.stdout
    assert '"secret":"psk-' in ran.stdout


def test_the_examples_of_the_credentials_page_run(tmp_path: Path) -> None:
    """Each line, beside no server."""
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/credentials.md").read_text(), re.DOTALL)
    (tmp_path / "key.txt").write_text("sk-another-0123456789\n")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    told = []
    for line in block.splitlines():
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={"PATH": path},
        )
        assert (ran.returncode, ran.stderr) == (0, ""), line
        told.append(ran.stdout)
    assert "cdef" in told[1]
    assert '"resealed": 2' in told[3]
    assert told[4] == "ACME_KEY is removed.\n"


def test_every_code_of_the_failure_table_is_documented() -> None:
    text = (ROOT / "docs/wire.md").read_text()
    codes = {row.code for row in TABLE.values() if row.status is None or row.status < 499 or row.status > 499}
    missing = {code for code in codes if f"`{code}`" not in text}
    assert missing <= {"content_refused", "hedge_lost"}, missing


def test_the_readme_shows_the_line_that_start_up_prints() -> None:
    table = parse("routes: {general: {tiers: [ollama/m]}}", "routes.yaml", {"OLLAMA_URL": "http://localhost:1"})
    printed = announcement(table, "http://127.0.0.1:4020/v1")
    (curl,) = re.findall(r"curl -sN .*?\}'", printed)
    readme = re.sub(r"\s*\\\n\s*", " ", (ROOT / "README.md").read_text())
    assert curl in readme
    assert "export OPENAI_BASE_URL=http://127.0.0.1:4020/v1 OPENAI_API_KEY=anything" in readme
    assert "export OPENAI_BASE_URL=http://127.0.0.1:4020/v1 OPENAI_API_KEY=anything" in printed


def test_where_keys_are_wanted_the_printed_line_shows_one() -> None:
    table = parse("access: {mode: keys}\nroutes: {general: {tiers: [ollama/m]}}", "routes.yaml", {})
    printed = announcement(table, "http://127.0.0.1:4020/v1", "penstock keys create first")
    assert """/chat/completions -H "authorization: Bearer $OPENAI_API_KEY" -H 'content-type""" in printed
    assert "export OPENAI_API_KEY=$(penstock keys create first)" in printed
    assert "anything" not in printed


def test_the_example_of_the_conversion_is_what_the_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs/from-litellm.md").read_text()
    (litellm,) = re.findall(r"~~~yaml\n(.*?)~~~", text, re.DOTALL)
    (routes,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (notes,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(litellm)
    result = CliRunner().invoke(main, ["convert", "litellm", "config.yaml"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, routes, notes)
