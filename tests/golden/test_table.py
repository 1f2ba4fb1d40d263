"""The table of the README says what there is of each provider, and there is enough."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tests.golden import oracle
from tests.golden.bench import Case, golden_cases

README: Final = Path(__file__).parent / "README.md"
HEAD: Final = (
    "| provider | streams: where usage stands | JSON answers | errors | limits |",
    "|---|---|---|---|---|",
)
PROVIDERS_LEAST: Final = 12  # of which there is a case of every kind
_WAIT_IN_BODY: Final = (b'"retryDelay"', b'"X-RateLimit-Reset"')


def usage_stands(case: Case) -> str | None:
    """Where the last usage of a stream stands that is not null."""
    found = None
    for event in oracle.events_of(case.body):
        data = oracle.data_in(event)
        document = oracle.parsed(data) if data is not None else None
        if isinstance(document, dict) and (place := _place(document)) is not None:
            found = place
    return found


def _place(document: dict[str, Any]) -> str | None:
    choices = document.get("choices")
    if document.get("usage"):
        own = "in the last chunk" if choices else "in a chunk of its own"
        return own if choices is not None else "in message_delta"
    if (document.get("x_groq") or {}).get("usage"):
        return "in x_groq"
    if any(choice.get("usage") for choice in choices or ()):
        return "in the choice"
    return "in the last event" if (document.get("response") or {}).get("usage") else None


def streams(cases: Iterable[Case]) -> set[str]:
    return {
        f"{case.api} {place}"
        for case in cases
        if case.streamed and case.expected["outcome"] == "ok" and (place := usage_stands(case)) is not None
    }


def answers(cases: Iterable[Case]) -> set[str]:
    return {case.api for case in cases if not case.streamed and case.expected["outcome"] == "ok"}


def errors(cases: Iterable[Case]) -> set[str]:
    return {_error(case) for case in cases if case.expected["outcome"] in ("refused", "partial")}


def _error(case: Case) -> str:
    if case.streamed:
        return "in a stream"
    return str(case.status) if case.status != 200 else "within a 200"


def limits(cases: Iterable[Case]) -> set[str]:
    found = set()
    for case in cases:
        names = [name.lower() for name, _ in case.headers]
        if case.expected["outcome"] == "ok" and any("ratelimit" in name for name in names):
            found.add("headers")
        if case.expected["outcome"] == "failed":
            told = "retry-after" in names or "retry-after-ms" in names
            in_body = any(mark in case.body for mark in _WAIT_IN_BODY)
            found.add(f"429, {'retry-after' if told else 'wait in the body' if in_body else 'no hint'}")
    return found


def rows() -> dict[str, tuple[set[str], ...]]:
    cases = golden_cases()
    return {
        provider: tuple(kind([case for case in cases if case.provider == provider]) for kind in KINDS)
        for provider in sorted({case.provider for case in cases})
    }


KINDS: Final = (streams, answers, errors, limits)


def table() -> str:
    lines = (
        f"| {provider} | {' | '.join('; '.join(sorted(kind)) or '-' for kind in kinds)} |"
        for provider, kinds in rows().items()
    )
    return "\n".join([*HEAD, *lines]) + "\n"


def test_the_table_says_what_there_is() -> None:
    assert table() in README.read_text("utf-8"), f"the table of {README} should be:\n{table()}"


def test_enough_providers_have_a_case_of_every_kind() -> None:
    whole = [provider for provider, kinds in rows().items() if all(kinds)]
    assert len(whole) >= PROVIDERS_LEAST, whole


def test_every_case_names_the_provider_of_its_folder() -> None:
    for case in golden_cases():
        assert case.name.split("/")[0] == case.provider
        assert case.asked.startswith(f"replayed-{case.provider}/")
