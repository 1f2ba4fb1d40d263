"""Whether a scenario showed what its row says, and Penstock's log too."""

from typing import Any

from tests.clients.expected import CANCELLED_WITHIN_S, Logged, Row, mismatches
from tests.clients.script import Ran


def check(row: Row, ran: Ran) -> None:
    facts = ran.facts[row.scenario]
    assert "crash" not in facts, facts["crash"]
    assert (wrong := mismatches(row.facts, facts)) == [], "\n".join(wrong)
    if row.logged is not None:
        _is_logged(row.logged, facts, ran)
    for model, times in (row.upstream or {}).items():
        assert ran.asked.get(model) == times, f"the upstream was asked {ran.asked.get(model)} times for {model}"


def _is_logged(logged: Logged, facts: dict[str, Any], ran: Ran) -> None:
    """One request, one exchange: a client that sent it again would show here."""
    found = [one for one in ran.exchanges if (one["asked"], one["api"]) == (logged.asked, logged.api)]
    assert len(found) == 1, f"{len(found)} exchanges for {logged.asked}"
    (record,) = found
    wanted = {"outcome": logged.outcome, "code": logged.code, "attempts": logged.attempts}
    assert (wrong := mismatches(wanted, record)) == [], "\n".join(wrong)
    shown = (facts.get("error") or {}).get("request_id") or facts.get("request_id")
    assert shown in (None, record["id"]), "the id that the client shows is the log's"
    if "left" in facts:
        assert record["ts"] - facts["left"] <= CANCELLED_WITHIN_S
