"""`/admin/breakers`: what the breakers hold back, and how to make them forget it."""

from typing import Any

from proxy.core import redact
from proxy.core.breaker import Subject, owner_of
from proxy.core.nearest import did_you_mean
from proxy.edge.admin.endpoint import Ask
from proxy.edge.admin.entry import bad
from proxy.phases.breakers import View


async def listed(ask: Ask) -> dict[str, Any]:
    """Every target and credential of which something is known; all others are closed."""
    now = ask.runtime.wall()
    known = ask.runtime.breakers.snapshot(now)
    if ask.account is not None:
        known = [view for view in known if owner_of(view.subject) in (None, ask.account)]
    return {"breakers": [_told(view, now) for view in known]}


async def reset(ask: Ask) -> dict[str, Any]:
    """Close one breaker, or all of them, here and in every other process."""
    target = ask.body.get("target")
    if target is not None and not isinstance(target, str):
        raise bad("'target' must be a text such as openai/gpt-4o-mini, or be left out for all.", "target")
    now = ask.runtime.wall()
    found = ask.runtime.breakers.reset(None if target is None else Subject(target), now)
    if target is not None and not found:
        known = [view.subject for view in ask.runtime.breakers.snapshot(now)]
        raise bad(f"Nothing is known of {target[:80]!r}, so it is closed.{did_you_mean(target, known)}", "target")
    return {"reset": list(found)}


def _told(view: View, now: float) -> dict[str, Any]:
    """``seconds``: until it is asked again."""
    return {
        "target": redact.text(view.subject),  # a client may have named it
        "state": view.state.value,
        "since": view.since,
        "until": view.until,
        "seconds": None if view.until is None else round(max(view.until - now, 0.0), 1),
        "failures": view.failures,
        "cause": view.cause.value,
        "last_error": redact.text(view.last_error) or None,
    }
