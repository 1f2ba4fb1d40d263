"""Bugs on their way to Sentry, beside the log: which exception, and where in the code. Nothing of a request goes with it.

An exception's message may quote what a client sent, and variables hold it, so neither is told: the log has the message under
the id that the report names. The SDK is used for its transport alone, which has a bounded queue and a thread of its own;
none of its integrations is on. Imported only where it is wanted: the package is that of the extra `sentry`.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import sentry_sdk
from sentry_sdk.utils import BadDsn, event_from_exception

from proxy.ports import ExchangeLog

REPORTS_MAX: Final = 20  # within `WINDOW_S`: one bug in a hot place is one bug
WINDOW_S: Final = 60.0
CLOSE_S: Final = 1.0

__all__ = ["BadDsn", "BugReports"]


class BugReports:
    """An `ExchangeLog` that hands everything on to another, and reports its bugs too."""

    def __init__(self, log: ExchangeLog, dsn: str, version: str, *, now: Callable[[], float] = time.monotonic) -> None:
        """Raises `BadDsn`."""
        self._log = log
        self._now = now
        self._window_began = now()
        self._reported = 0
        self._client = sentry_sdk.Client(
            dsn=dsn,
            release=f"penstock@{version}",
            default_integrations=False,
            auto_enabling_integrations=False,
            auto_session_tracking=False,
            include_local_variables=False,
            max_request_body_size="never",
            send_client_reports=False,
            shutdown_timeout=CLOSE_S,
        )

    def exchange(self, tell: Callable[[], Mapping[str, object]]) -> None:
        self._log.exchange(tell)

    def event(self, message: str, **facts: object) -> None:
        self._log.event(message, **facts)

    def bug(self, exchange_id: str, error: BaseException) -> None:
        self._log.bug(exchange_id, error)
        if self._is_one_too_many():
            return
        event, _ = event_from_exception(error, client_options=self._client.options)
        for one in event.get("exception", {}).get("values", []):
            one["value"] = "see Penstock's log under the id"
        event["tags"] = {"id": exchange_id}
        self._client.capture_event(event)

    def hide(self, secrets: Iterable[str]) -> None:
        self._log.hide(secrets)

    def close(self) -> None:
        self._client.close(timeout=CLOSE_S)
        self._log.close()

    def _is_one_too_many(self) -> bool:
        now = self._now()
        if now - self._window_began >= WINDOW_S:
            self._window_began, self._reported = now, 0
        self._reported += 1
        return self._reported > REPORTS_MAX
