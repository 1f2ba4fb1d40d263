"""What a program does with Instructor, configured by OPENAI_BASE_URL and OPENAI_API_KEY."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import instructor
from pydantic import BaseModel

from tests.clients.tools.telling import ASKED, Facts, cut, refused, shown, tell

MESSAGES: Any = [{"role": "user", "content": ASKED}]


class Level(BaseModel):
    """The water level of a river."""

    river: str
    metres: float
    rising: bool


def _ask(name: str, mode: instructor.Mode | None = None) -> Any:
    client = instructor.from_provider(f"openai/{name}", **({} if mode is None else {"mode": mode}))
    return client.create(response_model=Level, messages=MESSAGES)


def structured(mode: instructor.Mode | None = None) -> Facts:
    return {"parsed": _ask("general", mode).model_dump()}


def _partials(name: str) -> Iterator[Any]:
    client: Any = instructor.from_provider(f"openai/{name}")
    yield from client.create_partial(response_model=Level, messages=MESSAGES)


def partial() -> Facts:
    seen = list(_partials("general"))
    return {"parsed": seen[-1].model_dump(), "pieces": len(seen)}


SCENARIOS = {
    "example": lambda: shown("instructor_level.py"),
    "tools": structured,
    "structured": lambda: structured(instructor.Mode.JSON_SCHEMA),
    "responses tools": lambda: structured(instructor.Mode.RESPONSES_TOOLS),
    "tools stream": partial,
    "tools cut": lambda: cut(lambda: (partial.river or "" for partial in _partials("sim/tool-cut"))),
    "404": lambda: refused(lambda: _ask("generl")),
}

if __name__ == "__main__":
    tell(version("instructor"), SCENARIOS)
