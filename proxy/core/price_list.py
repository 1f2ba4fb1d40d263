"""A price list: the models of some providers, the names that each goes by, and their tariffs.

Looked up by the name that is sent to a provider. Several rules may fit one name (a family by its beginning, a dated version
by its whole): the first model of the list wins, as in the list that it was made from. Names come from clients too, so a
look-up leaves nothing behind; who asks for one name often remembers the answer, within a bound.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from proxy.core.tariff import Tariff, Unpriced

# Some tools write the date of a version without dashes, which no rule expects: gpt-5.2-20251211.
_COMPACT_DATE: Final = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class Fits(Enum):
    """How a rule reads a name."""

    WHOLE = "whole"
    START = "start"
    END = "end"
    PART = "part"
    EXPRESSION = "expression"
    ALL = "all"  # of the rules within
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to recognise a name. Shapes: ``text`` in lower case but for an expression; ``rules`` for ALL and ANY."""

    how: Fits
    text: str = ""
    rules: "tuple[Rule, ...]" = ()

    def fits(self, name: str) -> bool:
        match self.how:
            case Fits.WHOLE:
                return name == self.text
            case Fits.START:
                return name.startswith(self.text)
            case Fits.END:
                return name.endswith(self.text)
            case Fits.PART:
                return self.text in name
            case Fits.EXPRESSION:
                return re.search(self.text, name) is not None
            case Fits.ALL:
                return all(rule.fits(name) for rule in self.rules)
            case Fits.ANY:
                return any(rule.fits(name) for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of a list."""

    id: str
    rule: Rule
    tariff: Tariff | Unpriced


@dataclass(frozen=True, slots=True)
class PriceList:
    """The models of one provider, in the list's order. Whole names are indexed; the other rules are tried in order."""

    models: Sequence[Model]
    whole: Mapping[str, int] = field(init=False, repr=False, compare=False)
    others: Sequence[tuple[int, Rule]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        whole: dict[str, int] = {}
        others: list[tuple[int, Rule]] = []
        for index, model in enumerate(self.models):
            for rule in model.rule.rules if model.rule.how is Fits.ANY else (model.rule,):
                if rule.how is Fits.WHOLE:
                    whole.setdefault(rule.text, index)
                else:
                    others.append((index, rule))
        object.__setattr__(self, "whole", whole)
        object.__setattr__(self, "others", tuple(others))

    def find(self, name: str) -> Model | None:
        """The model that a name means, None where the list does not have it."""
        asked = name.lower().removeprefix("models/")  # as Gemini lists its own
        found = self._find(asked)
        if found is None:
            dashed = _COMPACT_DATE.sub(r"-\1-\2-\3", asked)
            found = self._find(dashed) if dashed != asked else None
        return None if found is None else self.models[found]

    def _find(self, name: str) -> int | None:
        first = self.whole.get(name)
        for index, rule in self.others:
            if first is not None and index >= first:
                break
            if rule.fits(name):
                return index
        return first
