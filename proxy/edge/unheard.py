"""The downstream port of an exchange that has no client: its answer is looked at and thrown away."""

from collections.abc import Mapping
from typing import NoReturn

from multidict import CIMultiDict

from proxy.core.failure import FailureKind
from proxy.ports import BodyRefused, HeaderPairs


class Unheard:
    """``body`` is the request's. ``sent`` are the headers of the answer, once it has begun; ``is_broken``: it ended badly.

    See `proxy.ports.Downstream`.
    """

    peer = ""  # nobody's

    __slots__ = ("_body", "gone", "headers", "is_broken", "sent")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.gone = self.is_broken = False
        self.headers: Mapping[str, str] = CIMultiDict({"content-type": "application/json"})
        self.sent: CIMultiDict[str] = CIMultiDict()

    async def body(self, bytes_max: int) -> bytes:
        if len(self._body) > bytes_max:
            raise BodyRefused(FailureKind.BODY_TOO_LARGE, f"The request body may be at most {bytes_max} bytes large.")
        return self._body

    def upload(self, bytes_max: int) -> NoReturn:  # noqa: ARG002 - the port's signature
        raise BodyRefused(FailureKind.BAD_REQUEST, "There is no form here, but JSON.")

    def outlive(self) -> None:
        """There is no client to outlive."""

    async def begin(self, status: int, headers: HeaderPairs) -> None:  # noqa: ARG002 - the exchange knows it
        self.sent.extend(headers)

    async def write(self, data: bytes) -> None:
        """Nobody reads it."""

    async def end(self) -> None:
        """As above."""

    def break_off(self) -> None:
        self.is_broken = True

    def abort(self) -> None:
        self.is_broken = True

    async def answer(self, status: int, headers: HeaderPairs, body: bytes) -> None:  # noqa: ARG002 - as above
        self.sent.extend(headers)
