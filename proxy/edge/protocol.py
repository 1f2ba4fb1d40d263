"""HTTP itself, where it ends before there is a request: what aiohttp's parser refuses gets an answer like any other.

aiohttp would answer in plain text that quotes what it refused, and log it with a traceback: a client's key among it.
"""

import logging
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from aiohttp import http_exceptions, web
from aiohttp.web_protocol import RequestHandler

from proxy.core import error_body
from proxy.core.failure import Failure, FailureKind

Tell = Callable[[str], None]
TellBug = Callable[[str, BaseException], None]

_HEADERS: Final = {
    "server": "penstock",
    "x-should-retry": "false",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}


def silent_logger() -> logging.Logger:
    """For aiohttp: Penstock's own log tells what is to be told."""
    logger = logging.getLogger("penstock.aiohttp")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return logger


class _Handler(RequestHandler):
    __slots__ = ("_bug", "_tell")

    def __init__(self, manager: web.Server, tell: Tell, bug: TellBug, **options: Any) -> None:
        super().__init__(manager, **options)
        self._tell = tell
        self._bug = bug

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        """The answer to what is no request, and to a request on which a handler failed. Quotes nothing of it."""
        request_id = f"req_{secrets.token_hex(12)}"
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and exc is not None:
            self._bug(request_id, exc)
        else:
            self._tell(type(exc).__name__ if exc is not None else "unknown")
        failure = _failure(status, exc, request_id)
        body = error_body.body(failure, failure.status, None, (), request_id)
        headers = {**_HEADERS, "x-request-id": request_id}
        response = web.Response(status=failure.status, body=body, content_type="application/json", headers=headers)
        response.force_close()
        return response


def _failure(status: int, exc: BaseException | None, request_id: str) -> Failure:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        message = f"Penstock failed on this request; the log has more under the id {request_id}."
        return Failure(FailureKind.INTERNAL, message)
    if isinstance(exc, http_exceptions.LineTooLong):
        return Failure(FailureKind.BAD_REQUEST, "The request line or a header field is too long.")
    return Failure(FailureKind.BAD_REQUEST, "The request is not valid HTTP/1.1.")


class HttpServer(web.Server):
    """aiohttp's low-level server with that handler.

    ``tell`` is given the kind of each refusal, ``bug`` the id and the exception of each request that a handler failed on.
    """

    def __init__(self, handle: Any, tell: Tell, bug: TellBug, **options: Any) -> None:
        super().__init__(handle, logger=silent_logger(), **options)
        self._tell = tell
        self._bug = bug

    def __call__(self) -> RequestHandler:
        return _Handler(self, self._tell, self._bug, loop=self._loop, **self._kwargs)
