"""The settings of a LiteLLM configuration beside its `model_list`: what of them Penstock has too, and a note on the rest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import PydanticCustomError

from proxy.config.from_litellm.deployments import ANY, is_name, seconds
from proxy.config.from_litellm.facts import BALANCE
from proxy.config.from_litellm.source import Found, Source, quoted
from proxy.config.money import budget_usd
from proxy.config.problem import Path
from proxy.core.window import zone

_USUAL_STRATEGY: Final = "simple-shuffle"
_ELSEWHERE: Final = frozenset({"model_list", "credential_list"})  # read with the deployments
_PERIODS: Final[Mapping[str, str]] = {"1d": "daily", "24h": "daily", "30d": "monthly", "1mo": "monthly"}
_BUDGET: Final = ("max_budget", "budget_duration", "timezone")  # of litellm_settings
_SHARED: Final = ("fallbacks", "default_fallbacks")  # may stand in both sections


@dataclass(frozen=True, slots=True)
class Fallback:
    """A name that takes over, and where it is named."""

    name: str
    found: Found


@dataclass(frozen=True, slots=True)
class Settings:
    """Shapes: ``fallbacks`` maps a name to those that take over from it, in order; ``any_fallbacks`` do so for the names
    that it lacks. ``aliases`` maps a name to the one that it stands for. ``budgets`` is that section of a routes file.
    Units: seconds.
    """

    balance: str
    fallbacks: Mapping[str, tuple[Fallback, ...]]
    any_fallbacks: tuple[Fallback, ...]
    aliases: Mapping[str, Fallback]
    timeout_s: float | None
    timeout_place: Path
    stream_timeout_s: float | None
    default_model: Found | None
    model_defaults: Found | None
    variables: Mapping[str, str]
    budgets: Mapping[str, Any]


def settings(source: Source, root: Mapping[str, Found]) -> Settings:
    router = source.members(root.get("router_settings"))
    library = source.members(root.get("litellm_settings"))
    general = source.members(root.get("general_settings"))
    variables = source.members(root.get("environment_variables"))
    for key in _SHARED:
        if key in router and key in library:
            source.lost(library[key].path, f"router_settings.{key} counts")
    fallbacks: dict[str, tuple[Fallback, ...]] = {}
    any_fallbacks: list[Fallback] = []
    for name, found in _pairs(source, router.get("fallbacks") or library.get("fallbacks")):
        taking_over = tuple(_taking_over(source, found))
        if name == ANY:
            any_fallbacks.extend(taking_over)
        else:
            fallbacks[name] = taking_over
    default = router.get("default_fallbacks") or library.get("default_fallbacks")
    if default is not None:
        any_fallbacks.extend(_taking_over(source, default))
    timeout = router.get("timeout") or library.get("request_timeout")
    if "timeout" in router and "request_timeout" in library:
        source.lost(library["request_timeout"].path, "router_settings.timeout counts")
    made = Settings(
        balance=_balance(source, router.get("routing_strategy")),
        fallbacks=fallbacks,
        any_fallbacks=tuple(any_fallbacks),
        aliases=_aliases(source, router.get("model_group_alias")),
        timeout_s=seconds(source, timeout),
        timeout_place=() if timeout is None else timeout.path,
        stream_timeout_s=seconds(source, router.get("stream_timeout")),
        default_model=general.get("completion_model"),
        model_defaults=router.get("default_litellm_params"),
        variables={key: found.value for key, found in variables.items() if isinstance(found.value, str)},
        budgets=_budgets(source, library),
    )
    source.rest(
        router,
        *_SHARED,
        "routing_strategy",
        "model_group_alias",
        "timeout",
        "stream_timeout",
        "default_litellm_params",
    )
    source.rest(library, *_SHARED, "request_timeout", *_BUDGET)
    source.rest(general, "completion_model")
    for found in variables.values():
        source.lost(found.path, "set it in Penstock's environment")
    _other_sections(source, root)
    return made


def _other_sections(source: Source, root: Mapping[str, Found]) -> None:
    read = {*_ELSEWHERE, "router_settings", "litellm_settings", "general_settings", "environment_variables"}
    for name, found in root.items():
        if name == "include":
            source.lost(
                found.path, "what other files hold is converted by itself. Put it into this file to have it all"
            )
        elif name not in read and not name.startswith("x-"):  # by custom nothing but anchors for the others
            source.lost(found.path)


def _balance(source: Source, found: Found | None) -> str:
    strategy = source.text(found) or _USUAL_STRATEGY
    if found is not None and strategy not in BALANCE:
        source.lost(found.path, "targets of one tier share the requests by their weights instead")
    return BALANCE.get(strategy, BALANCE[_USUAL_STRATEGY])


def _budgets(source: Source, library: Mapping[str, Found]) -> dict[str, Any]:
    """What the whole proxy may spend. LiteLLM too counts a day from midnight and 30 days from the 1st, in its time zone."""
    given = {key: library[key] for key in _BUDGET if key in library}
    amount, duration, timezone = (given.get(key) for key in _BUDGET)
    period = _PERIODS.get(source.text(duration) or "")
    if amount is None or period is None:
        for found in given.values():
            source.lost(found.path, "a budget here is a max_budget for a day (1d) or for a month (30d)")
        return {}
    try:
        budget_usd(amount.value)
    except PydanticCustomError as error:
        source.lost(amount.path, error.message())
        return {}
    made = {period: amount.value}
    name = source.text(timezone)
    if timezone is not None and name is not None and zone(name) is None:
        source.lost(timezone.path, f"{quoted(name)} is no time zone of the IANA list")
    elif name is not None:
        made["timezone"] = name
    return made


def _pairs(source: Source, found: Found | None) -> Iterator[tuple[str, Found]]:
    """The entries of `fallbacks`: a list of mappings, of which each has one name as a rule; a bare name means any."""
    if found is not None and isinstance(found.value, dict):
        yield from source.members(found).items()
        return
    for item in source.items(found):
        if isinstance(item.value, str):
            yield ANY, item
        else:
            yield from source.members(item).items()


def _taking_over(source: Source, found: Found) -> Iterator[Fallback]:
    """Names, or mappings whose `model` is one; a single one may stand without a list."""
    for item in source.items(found) if isinstance(found.value, list) else [found]:
        if isinstance(item.value, dict):
            members = source.members(item)
            source.rest(members, "model")
            item = members.get("model", Found(None, item.path))  # noqa: PLW2901 - the name is within
        name = source.text(item)
        if name is not None:
            yield Fallback(name, item)


def _aliases(source: Source, found: Found | None) -> dict[str, Fallback]:
    made: dict[str, Fallback] = {}
    for alias, one in source.members(found).items():
        target = one
        if isinstance(one.value, dict):
            members = source.members(one)
            if "hidden" in members and members["hidden"].value:
                source.lost(members["hidden"].path, "GET /v1/models lists every name that can be asked for")
            source.rest(members, "model", "hidden")
            target = members.get("model", one)
        name = source.text(target)
        if name == alias:
            source.lost(one.path, f"{quoted(alias)} stands for itself")
        elif not is_name(alias) or ANY in alias:
            source.lost(one.path, "no name that a client could ask for")
        elif name is not None:
            made[alias] = Fallback(name, target)
    return made
