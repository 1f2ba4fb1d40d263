"""What is wrong with the money of a document beyond its shape: names of cost tiers, and amounts that exclude each other."""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from proxy.config.money import COST_TIERS, TIER_NAME, PriceEntry, TokenPrices, amount, nanousd, tariff
from proxy.config.problem import Path, Problem
from proxy.config.read import Document
from proxy.config.section import shown
from proxy.core.cost import OUTPUT_TOKENS_MIN, Bounds, worst_case
from proxy.core.nearest import did_you_mean

_TOKEN_KINDS: Final = tuple(TokenPrices.model_fields)


def check_money(document: Document, file: str) -> list[Problem]:
    """Every problem, in no particular order. What is misshapen is told elsewhere, and passed over here."""
    return list(_Checker(document, file).problems())


class _Checker:
    def __init__(self, document: Document, file: str) -> None:
        self._document = document
        self._file = file
        given = document.data.get("cost_tiers")
        self._cost_tiers: Mapping[str, Any] = given if isinstance(given, dict) else COST_TIERS
        self._usual_tier = _mapping(document.data, "defaults").get("cost_tier")

    def problems(self) -> Iterator[Problem]:
        for name in _mapping(self._document.data, "cost_tiers"):
            if not re.fullmatch(TIER_NAME, name):
                message = "a cost tier's name is up to 64 lower-case letters, digits, '_' and '-'"
                yield self._at_key(("cost_tiers", name), message)
        yield from self._cost_tier(("defaults",), _mapping(self._document.data, "defaults"))
        accounts = _mapping(self._document.data, "accounts")
        for place, data in (((), self._document.data), *((("accounts", name), one) for name, one in accounts.items())):
            yield from self._place(place, data)

    def _place(self, place: Path, data: Any) -> Iterator[Problem]:
        """The providers and routes of the whole file, or of an account."""
        for provider, entry in _mapping(data, "providers").items():
            for model in _mapping(entry, "price"):
                path: Path = (*place, "providers", provider, "price", model)
                if not model or model.count("*") > 1:
                    yield self._at_key(path, "a pattern holds one '*'" if model else "expected a model or a pattern")
                yield from self._price(path)
        for route, entry in _mapping(data, "routes").items():
            yield from self._route((*place, "routes", route), entry)

    def _route(self, path: Path, entry: Any) -> Iterator[Problem]:
        yield from self._cost_tier(path, entry)
        for place, target in _targets(entry):
            here = (*path, *place)
            yield from self._cost_tier(here, target)
            yield from self._price((*here, "price"))
            yield from self._affordable(here, target, _mapping(entry).get("cost_tier", self._usual_tier))

    def _cost_tier(self, path: Path, entry: Any) -> Iterator[Problem]:
        name = _mapping(entry).get("cost_tier")
        if isinstance(name, str) and name not in self._cost_tiers:
            known = f" Known: {', '.join(self._cost_tiers)}" if self._cost_tiers else " The file has none"
            hint = did_you_mean(name, self._cost_tiers) or known
            yield self._at_value((*path, "cost_tier"), f"cost tier {shown(name)} does not exist.{hint}")

    def _price(self, path: Path) -> Iterator[Problem]:
        """A price that names one side only would charge nothing for the other, unseen."""
        given = _at(self._document.data, path)
        if not isinstance(given, dict):
            return
        named = [kind for kind in _TOKEN_KINDS if kind in given]
        missing = [side for side in ("input", "output") if side not in given]
        if named and missing:
            yield self._at_key(path, f"needs '{missing[0]}' beside '{named[0]}'. Write 0 where nothing is charged")
        elif not given:
            yield self._at_key(path, "names no price. Give it input and output, or a fee such as request")
        yield from self._above((*path, "above"), given.get("above"))

    def _above(self, path: Path, given: object) -> Iterator[Problem]:
        sizes: list[object] = []
        for index, larger in enumerate(given if isinstance(given, list) else ()):
            if not isinstance(larger, dict):
                continue
            missing = [side for side in ("input", "output") if side not in larger]
            if missing:
                yield self._at_key((*path, index), f"needs '{missing[0]}'. Write 0 where nothing is charged")
            size = larger.get("input_tokens")
            if size in sizes:
                yield self._at_key((*path, index), f"unreachable: {size} tokens stand there twice")
            sizes.append(size)

    def _affordable(self, path: Path, target: Mapping[str, Any], of_route: object) -> Iterator[Problem]:
        """A target whose shortest answer costs more than its cost tier allows would never be used."""
        name = target.get("cost_tier", of_route)
        ceiling = amount(self._cost_tiers.get(name)) if isinstance(name, str) else None
        price = _valid(target.get("price"))
        if ceiling is None or ceiling <= 0 or price is None:
            return
        most = target.get("max_output_tokens")
        shortest = min(OUTPUT_TOKENS_MIN, most) if type(most) is int and most > 0 else OUTPUT_TOKENS_MIN
        least = worst_case(Bounds(input_tokens=1, output_tokens=shortest), tariff(price), 0)
        if least > nanousd(ceiling):
            where = "cost_tier" if "cost_tier" in target else "price"
            costs = f"{shortest} tokens of output may cost {Decimal(least).scaleb(-9).normalize():f} USD"
            yield self._at_value((*path, where), f"unreachable: {costs}, and cost tier '{name}' allows {ceiling}")

    def _at_value(self, path: Path, message: str) -> Problem:
        return Problem(self._file, *self._document.value_at(path), path, message)

    def _at_key(self, path: Path, message: str) -> Problem:
        return Problem(self._file, *self._document.key_at(path), path, message)


def _targets(route: Any) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Every target of a route that stands in the long form, and where: a tier alone, or several of one tier."""
    tiers = _mapping(route).get("tiers")
    for index, tier in enumerate(tiers if isinstance(tiers, list) else ()):
        if not isinstance(tier, dict):
            continue
        yield ("tiers", index), tier
        members = tier.get("targets")
        for number, member in enumerate(members if isinstance(members, list) else ()):
            if isinstance(member, dict):
                yield ("tiers", index, "targets", number), member


def _valid(given: object) -> PriceEntry | None:
    try:
        return PriceEntry.model_validate(given) if isinstance(given, dict) else None
    except ValueError:  # told as an error of shape
        return None


def _mapping(data: Any, *path: str) -> Mapping[str, Any]:
    for step in path:
        data = data.get(step) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def _at(data: Any, path: Path) -> Any:
    for step in path:
        if isinstance(data, dict):
            data = data.get(str(step))
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            return None
    return data
