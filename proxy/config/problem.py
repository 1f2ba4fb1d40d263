"""What can be wrong with a configuration, where, and the one exception that says so."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from proxy.core import redact

Path = tuple[str | int, ...]

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def dotted(path: Path) -> str:
    """A path as a person writes it: `routes.voice.tiers[1]`, `models["gpt-*"]`."""
    written = ""
    for step in path:
        if isinstance(step, int):
            written += f"[{step}]"
        elif _BARE_KEY.fullmatch(step):
            written += f".{step}" if written else step
        else:
            written += f'["{step}"]' if len(step) <= 80 else f'["{step[:79]}…"]'
    return written


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong. Units: ``line`` and ``column`` count from 1; 0 where the file as a whole is meant."""

    file: str
    line: int
    column: int
    path: Path
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        where = dotted(self.path)
        return redact.text(f"{place}  {where}: {self.message}" if where else f"{place}  {self.message}")


class ConfigError(Exception):
    """The configuration cannot be used. Carries every problem found, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        unique = dict.fromkeys(problems)
        self.problems = tuple(sorted(unique, key=lambda problem: (problem.line, problem.column)))
        super().__init__("\n".join(str(problem) for problem in self.problems))
