"""What a person does with llm. An `extra-openai-models.yaml` in its own LLM_USER_PATH configures it; it needs no key."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llm
from click.testing import CliRunner
from llm.cli import cli

from tests.clients.tools.telling import ASKED, Facts, cut, example_text, streamed, tell

_ADDED = """
- model_id: cut
  model_name: sim/cut:3
  api_base: {url}
- model_id: mistyped
  model_name: generl
  api_base: {url}
"""


def configure() -> None:
    """The file of the documents, at this Penstock's address, and two models that go wrong."""
    url = os.environ["PENSTOCK_BASE_URL"]
    text = example_text("extra-openai-models.yaml").replace("http://127.0.0.1:4020/v1", url) + _ADDED.format(url=url)
    folder = Path(os.environ["LLM_USER_PATH"])
    folder.mkdir()
    (folder / "extra-openai-models.yaml").write_text(text, encoding="utf-8")


def example() -> Facts:
    """The command of the documents, as a program of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "penstock", ASKED], capture_output=True, text=True, timeout=30, check=True
    )
    return {"printed": done.stdout}


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False)


def stream() -> Facts:
    model = llm.get_model("penstock")
    return streamed(model.prompt(ASKED, stream=False).text(), model.prompt(ASKED))


def tools() -> Facts:
    """The loop whole: a tool is called, its result is sent, and an answer comes."""
    called: list[list[object]] = []

    def forecast(river: str, days: int) -> str:
        """The water level of the coming days."""
        called.append(["forecast", {"river": river, "days": days}])
        return "2 m"

    text = llm.get_model("penstock").chain(ASKED, tools=[forecast]).text()
    return {"calls": called, "text": text}


def failed(name: str) -> Facts:
    done = _run("-m", name, ASKED)
    return {"exit": done.exit_code, "output": done.output}


SCENARIOS = {
    "example": example,
    "chat": lambda: {"text": _run("-m", "penstock", "--no-stream", ASKED).output},
    "chat stream": stream,
    "structured": lambda: {"output": _run("-m", "penstock", "--schema", "river, metres float", ASKED).output},
    "tools": tools,
    "chat cut": lambda: cut(lambda: llm.get_model("cut").prompt(ASKED)),
    "cut command": lambda: failed("cut"),
    "404 command": lambda: failed("mistyped"),
}

if __name__ == "__main__":
    configure()
    tell(version("llm"), SCENARIOS)
