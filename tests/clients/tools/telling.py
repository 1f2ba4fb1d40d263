"""What the scripts of this folder have in common: one JSON line for each scenario, with what the program saw.

Nothing is judged here; `rows` does that. It runs in the tools' own venvs, so it knows nothing of Penstock's code.
"""

import io
import json
import runpy
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

Facts = dict[str, Any]

ASKED: Final = "How high is the water?"
_EXAMPLES: Final = Path(__file__).parents[3] / "docs" / "examples"


def tell(version: str, scenarios: Mapping[str, Callable[[], Facts]]) -> None:
    print(json.dumps({"version": version}), flush=True)
    for name, scenario in scenarios.items():
        with redirect_stdout(io.StringIO()):
            try:
                facts = scenario()
            except Exception:  # noqa: BLE001 - told, and judged where the others are
                facts = {"crash": traceback.format_exc()}
        line = json.dumps({"scenario": name, **facts})
        print(line, flush=True)


def shown(file: str) -> Facts:
    """What an example of the documents prints, run as a program."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        runpy.run_path(str(_EXAMPLES / file), run_name="__main__")
    return {"printed": printed.getvalue()}


def example_text(file: str) -> str:
    return (_EXAMPLES / file).read_text(encoding="utf-8")


def streamed(whole: str, pieces: Iterable[str]) -> Facts:
    """Whether a stream says what the whole answer says, and in how many pieces of text."""
    texts = [piece for piece in pieces if piece]
    return {"text_equals_whole": "".join(texts) == whole, "pieces": len(texts)}


def refused(ask: Callable[[], object]) -> Facts:
    try:
        answer = ask()
    except Exception as raised:  # noqa: BLE001 - whatever a program would see
        return {"error": error(raised)}
    return {"error": None, "answer": repr(answer)}


def cut(pieces: Callable[[], Iterable[str]]) -> Facts:
    """Read to the end, or to what is raised instead of it."""
    count = 0
    try:
        for piece in pieces():
            count += 1 if piece else 0
    except Exception as raised:  # noqa: BLE001 - whatever a program would see
        return {"pieces": count, "error": error(raised)}
    return {"pieces": count, "error": None}


def error(raised: BaseException) -> Facts:
    return {"class": type(raised).__name__, "message": str(raised)}
