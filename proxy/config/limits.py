"""The section `limits`, at the top, of an account and of a provider: its shape, what cannot be meant, and what it comes to.

    limits: {rps: 10, burst: 50, tpm: 200000, concurrency: 32}

At the top it holds for each virtual key, or for the account that those share who have none. An account's own holds for each
of its virtual keys instead, and for all of them together; what it does not say of its virtual keys they have from the top.
A provider's bounds what is sent there.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from proxy.config.problem import Path
from proxy.config.section import Section, invalid, shown
from proxy.core.limit_table import LimitTable
from proxy.core.limits import BURST_MAX, CONCURRENCY_MAX, FILL_S_MAX, RPS, TPM_MAX, UNLIMITED, Limits
from proxy.providers.rows import CATALOGUE
from proxy.terms import AccountId, ProviderId


def _rps(value: object) -> float:
    low, high = RPS
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= float(value) <= high:  # type: ignore[arg-type] # a number
        raise invalid(f"expected requests a second, from {low} to {high}, got {shown(value)}")
    if round(float(value), 3) != float(value):  # type: ignore[arg-type] # likewise
        raise invalid(f"expected at most 3 decimals, got {shown(value)}")
    return float(value)  # type: ignore[arg-type] # likewise


def _whole(what: str, most: int) -> Any:
    def checked(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
            return value
        raise invalid(f"expected {what}, from 1 to {most}, got {shown(value)}")

    return BeforeValidator(checked)


def _schema(kind: str, least: float, most: int) -> WithJsonSchema:
    return WithJsonSchema({"type": kind, "minimum": least, "maximum": most})


Rps = Annotated[float, BeforeValidator(_rps), _schema("number", *RPS)]
Burst = Annotated[int, _whole("how many requests may come at once", BURST_MAX), _schema("integer", 1, BURST_MAX)]
Tpm = Annotated[int, _whole("tokens a minute", TPM_MAX), _schema("integer", 1, TPM_MAX)]
Concurrency = Annotated[
    int, _whole("how many requests may be under way", CONCURRENCY_MAX), _schema("integer", 1, CONCURRENCY_MAX)
]


class LimitsEntry(Section):
    """How much may be asked. What is not said has no limit of its own."""

    rps: Rps | None = Field(default=None, description="Requests a second, in the long run.")
    burst: Burst | None = Field(
        default=None, description="Requests at once, beside rps; as many as a second's where nothing is said."
    )
    tpm: Tpm | None = Field(default=None, description="LLM tokens a minute, in and out.")
    concurrency: Concurrency | None = Field(default=None, description="Requests under way at once.")


def problems(data: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """What cannot be meant, in a document whose shape may still be wrong: where, and why."""
    yield from _problems(("limits",), data.get("limits"))
    for section in ("accounts", "providers"):
        entries = data.get(section)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if isinstance(entry, dict):
                yield from _problems((section, name, "limits"), entry.get("limits"))
    yield from _of_accounts(data.get("accounts"), data.get("providers"))


def _of_accounts(accounts: object, shared: object) -> Iterator[tuple[Path, str]]:
    """The limits of providers that an account has: of its own ones alone, because all accounts send to the others."""
    for account, entry in accounts.items() if isinstance(accounts, dict) else ():
        providers = entry.get("providers") if isinstance(entry, dict) else None
        for name, own in providers.items() if isinstance(providers, dict) else ():
            path: Path = ("accounts", account, "providers", name, "limits")
            if not isinstance(own, dict) or "limits" not in own:
                continue
            yield from _problems(path, own["limits"])
            if name in CATALOGUE or (isinstance(shared, dict) and name in shared):
                yield path, f"all accounts send to '{name}'. Its limits stand in providers.{name}.limits"


def _problems(path: Path, given: object) -> Iterator[tuple[Path, str]]:
    if not isinstance(given, dict):
        return
    if not given:
        yield path, "names no limit. Give it rps, tpm or concurrency, or remove the key"
    rps, burst = given.get("rps"), given.get("burst")
    if burst is not None and rps is None:
        yield (*path, "burst"), "needs 'rps' beside it: the rate at which what was sent at once may be sent again"
    is_number = isinstance(rps, int | float) and not isinstance(rps, bool) and rps > 0
    if is_number and isinstance(burst, int) and burst > rps * FILL_S_MAX:  # type: ignore[operator] # a number
        yield (*path, "burst"), f"{burst} requests take more than a day to come back at {shown(rps)} a second"


def limit_table(
    top: LimitsEntry | None,
    accounts: Mapping[str, LimitsEntry | None],
    providers: Mapping[tuple[str | None, str], LimitsEntry | None],
) -> LimitTable:
    """Whose limits hold, from the section at the top, those of the accounts and those of the providers.

    Shapes: a provider stands beside the account that has it for itself, or beside None.
    """
    return LimitTable(
        _limits(top),
        {AccountId(name): _limits(entry) for name, entry in accounts.items() if entry is not None},
        {
            (None if owner is None else AccountId(owner), ProviderId(name)): _limits(entry)
            for (owner, name), entry in providers.items()
            if entry is not None
        },
    )


def _limits(entry: LimitsEntry | None) -> Limits:
    return UNLIMITED if entry is None else Limits(entry.rps, entry.burst, entry.tpm, entry.concurrency)
