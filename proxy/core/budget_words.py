"""What people are told of budgets, in words and as a document: clients that are refused, operators that are alerted."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from proxy.core.budget import AlertLevel, PayerId, Refused, usd
from proxy.core.window import Period
from proxy.terms import NanoUsd


@dataclass(frozen=True, slots=True)
class BudgetAlert:
    """A budget has come to a level. Units: nano-USD, Unix seconds."""

    subject: PayerId
    period: Period
    level: AlertLevel
    spent_nanousd: NanoUsd
    held_nanousd: NanoUsd
    limit_nanousd: NanoUsd
    resets_at: int
    at: float


def refusal(refused: Refused) -> str:
    """The message of a 402 `budget_exceeded`."""
    held = f", {usd(refused.held_nanousd)} USD are held for requests that still run," if refused.held_nanousd else ""
    return (
        f"{_who(refused.subject)} has spent {usd(refused.used_nanousd)} of {usd(refused.limit_nanousd)} USD of its "
        f"{refused.period.value} budget{held} and this request may cost up to {usd(refused.asked_nanousd)} USD. "
        + _what_helps(refused)
    )


def _what_helps(refused: Refused) -> str:
    """Waiting is no help to a request that is larger than the whole budget."""
    if refused.asked_nanousd > refused.limit_nanousd:
        return "That is more than the whole budget: lower the output cap, shorten the prompt or ask a cheaper route."
    return f"The budget begins anew at {_moment(refused.resets_at)}."


def document(alert: BudgetAlert, alert_id: str) -> dict[str, Any]:
    """What a webhook gets. The id stays the same when it is sent again."""
    return {
        "id": alert_id,
        "kind": "budget",
        "level": alert.level.name.lower(),
        "subject": alert.subject,
        "period": alert.period.value,
        "spent_nanousd": alert.spent_nanousd,
        "held_nanousd": alert.held_nanousd,
        "limit_nanousd": alert.limit_nanousd,
        "spent_usd": usd(alert.spent_nanousd),
        "limit_usd": usd(alert.limit_nanousd),
        "resets_at": _moment(alert.resets_at),
        "at": _moment(alert.at),
        "text": sentence(alert),
    }


def headline(alert: BudgetAlert) -> str:
    what = "reached" if alert.level is AlertLevel.LIMIT else "nearly reached"
    return f"Penstock: {alert.period.value} budget of {_who(alert.subject)} {what}"


def sentence(alert: BudgetAlert) -> str:
    share = f"{alert.spent_nanousd * 100 // alert.limit_nanousd} %" if alert.limit_nanousd else "all"
    told = (
        f"{_who(alert.subject)} has spent {usd(alert.spent_nanousd)} of {usd(alert.limit_nanousd)} USD ({share}) "
        f"of its {alert.period.value} budget."
    )
    if alert.level is AlertLevel.LIMIT:
        until = _moment(alert.resets_at)
        return f"{told} Requests that do not fit any more are refused (402 budget_exceeded) until {until}."
    return f"{told} It begins anew at {_moment(alert.resets_at)}."


def slack_text(alert: BudgetAlert) -> str:
    """Source: docs.slack.dev, formatting message text: these three characters are control characters (2026-11)."""
    return sentence(alert).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _who(subject: str) -> str:
    kind, _, name = subject.partition(":")
    return f"{kind.replace('_', ' ')} {name}" if name else "the whole proxy"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
