"""The Codex CLI itself, pointed at Penstock by the `config.toml` of the documents: it asks the Responses API alone.

The scripted provider answers with a call of the first tool that is offered, which is Codex's shell; it then answers the
call's result with text. So one question makes two exchanges, and a command (`simulated text`) that no shell knows.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from os import environ
from pathlib import Path
from typing import Any, Final

import pytest

from tests.clients.expected import mismatches
from tests.clients.install import node_packages
from tests.clients.stage import Stage, stage, with_parent
from tests.clients.tools.rows import CONFIG, EXAMPLES

pytestmark = [pytest.mark.clients, pytest.mark.large]

RUN_S: Final = 60.0
_QUIET: Final = "\n[analytics]\nenabled = false\n"
_FEW_TRIES: Final = "stream_max_retries = 1\n"  # a broken stream is else given five more


@dataclass(frozen=True, slots=True)
class Told:
    """``events``: what `codex exec --json` printed."""

    exit_code: int
    events: list[dict[str, Any]]

    def items(self, kind: str) -> list[dict[str, Any]]:
        done = [event["item"] for event in self.events if event["type"] == "item.completed"]
        return [item for item in done if item["type"] == kind]


@pytest.fixture
def on(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path / "stage", config=CONFIG) as one:
        yield one


def _provider(on: Stage, model: str) -> str:
    """The documents' file, at this Penstock's address and for this model."""
    config = (EXAMPLES / "codex-config.toml").read_text(encoding="utf-8")
    return config.replace("http://127.0.0.1:4020/v1", on.url).replace('"general"', f'"{model}"') + _FEW_TRIES


def _ask(on: Stage, config: str) -> Told:
    codex = node_packages("codex", Path(__file__).parent, []) / "node_modules" / ".bin" / "codex"
    home, work = on.output.parent / "codex", on.output.parent / "work"
    home.mkdir()
    work.mkdir()
    (home / "config.toml").write_text(config + _QUIET, encoding="utf-8")
    given = {
        "PATH": environ["PATH"],
        "HOME": str(home),
        "CODEX_HOME": str(home),
        "OPENAI_API_KEY": "anything",
        "HTTPS_PROXY": "http://127.0.0.1:9",  # nothing leaves this machine
        "NO_PROXY": "127.0.0.1",
    }
    command: list[str | Path] = [codex, "exec", "--json", "--skip-git-repo-check", "-C", work, "How high is the water?"]
    done = subprocess.run(
        with_parent(command),
        env=given,
        cwd=work,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    on.stop()
    assert done.stdout, done.stderr[-2000:]
    return Told(done.returncode, [json.loads(line) for line in done.stdout.splitlines()])


def test_it_asks_runs_what_it_is_told_and_asks_again(on: Stage) -> None:
    told = _ask(on, _provider(on, "general"))
    assert told.exit_code == 0
    (run,) = told.items("command_execution")
    assert "simulated text" in run["command"]
    (said,) = told.items("agent_message")
    assert "How high is the water?" in said["text"]
    assert [(one["api"], one["outcome"], one["stream"]) for one in on.exchanges()] == [("responses", "ok", True)] * 2
    used = told.events[-1]["usage"]
    counted = [one["usage"] for one in on.exchanges()]
    assert used["input_tokens"] == sum(one["input"] for one in counted)
    assert used["output_tokens"] == sum(one["output"] for one in counted)


def test_its_own_provider_takes_a_base_url_too(on: Stage) -> None:
    """It tries a WebSocket first, is told that there is none, and asks over HTTP at once."""
    told = _ask(on, f'model = "general"\nopenai_base_url = "{on.url}"\n')
    assert told.exit_code == 0
    assert not [event for event in told.events if event["type"] == "error"]
    seen = [(one["outcome"], one.get("code")) for one in on.exchanges()]
    assert seen == [("refused", "upgrade_not_supported"), ("ok", None), ("ok", None)]


def test_it_shows_what_penstock_says_of_a_model_that_is_not_there(on: Stage) -> None:
    told = _ask(on, _provider(on, "generl"))
    assert told.exit_code == 1
    assert told.events[-1]["type"] == "turn.failed"
    assert "Did you mean 'general'?" in told.events[-1]["error"]["message"]
    (record,) = on.exchanges()
    assert mismatches({"asked": "generl", "code": "model_not_found", "attempts": 0}, record) == []


def test_a_broken_stream_is_no_answer(on: Stage) -> None:
    """It does not read the error event, but sees that the transfer broke off; it asks again, and then fails the turn."""
    told = _ask(on, _provider(on, "sim/cut:3"))
    assert told.exit_code == 1
    assert told.events[-1]["type"] == "turn.failed"
    assert "stream disconnected before completion" in told.events[-1]["error"]["message"]
    assert told.items("agent_message") == []
    assert [one["outcome"] for one in on.exchanges()] == ["partial", "partial"]
