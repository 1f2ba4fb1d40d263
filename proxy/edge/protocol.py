"""HTTP itself, where it ends before there is a request: what aiohttp's parser refuses gets an answer like any other.

aiohttp would answer in plain text that quotes what it refused, and log it with a traceback: a client's key among it.
"""

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from aiohttp import http_exceptions, web
from aiohttp.web_protocol import RequestHandler

from proxy.core import error_body
from proxy.core.failure import Failure, FailureKind

Tell = Callable[[str], None]


def silent_logger() -> logging.Logger:
    """For aiohttp: Penstock's own log tells what is to be told."""
    logger = logging.getLogger("penstock.aiohttp")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return logger


class _Handler(RequestHandler):
    __slots__ = ("_tell",)

    def __init__(self, manager: web.Server, tell: Tell, **options: Any) -> None:
        super().__init__(manager, **options)
        self._tell = tell

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        """The answer to what is no request. Quotes nothing of it."""
        is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        self._tell(type(exc).__name__ if exc is not None else "unknown")
        if is_ours:
            failure = Failure(FailureKind.INTERNAL, "Penstock failed on this request.")
        elif isinstance(exc, http_exceptions.LineTooLong):
            failure = Failure(FailureKind.BAD_REQUEST, "The request line or a header field is too long.")
        else:
            failure = Failure(FailureKind.BAD_REQUEST, "The request is not valid HTTP/1.1.")
        body = error_body.body(failure, failure.status, None, (), "")
        headers = {"server": "penstock", "x-should-retry": "false"}
        response = web.Response(status=failure.status, body=body, content_type="application/json", headers=headers)
        response.force_close()
        return response


class HttpServer(web.Server):
    """aiohttp's low-level server with that handler. ``tell`` is given the kind of each refusal."""

    def __init__(self, handle: Any, tell: Tell, **options: Any) -> None:
        super().__init__(handle, logger=silent_logger(), **options)
        self._tell = tell

    def __call__(self) -> RequestHandler:
        return _Handler(self, self._tell, loop=self._loop, **self._kwargs)
