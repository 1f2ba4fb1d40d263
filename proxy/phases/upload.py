"""A request body that streams through: its `model` is found as it passes, and each target gets it with its own."""

from collections.abc import AsyncIterator

from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.multipart import FormError, FormScanner, Patch
from proxy.ports import BodyRefused, ClientGone, RequestBody


class Upload:
    """``scanner`` None: the body is no form, and nothing in it is looked for.

    ``problem`` is what ended the reading: the sending of a body fails with it somewhere inside the client of the wire, which
    then tells of a broken connection only.
    """

    __slots__ = ("_body", "_scanned", "_scanner", "problem", "whole")

    def __init__(self, body: RequestBody, scanner: FormScanner | None) -> None:
        self._body = body
        self._scanner = scanner
        self._scanned = 0
        self.problem: Rejected | ClientGone | None = None
        self.whole = False  # its end has come

    async def find_model(self) -> str | None:
        """The form's model, as soon as it has come; None where the form has none. Raises `Rejected`, `ClientGone`."""
        scanner = self._scanner
        while scanner is not None and scanner.model is None:
            if not await self._at(self._scanned):
                return None
        return None if scanner is None else scanner.model or None

    def patch(self, model: str) -> Patch | None:
        """What a target's `model` changes in the body; None where nothing is changed."""
        return None if self._scanner is None else self._scanner.patch(model)

    def length(self, patch: Patch | None) -> int | None:
        """How many bytes `patched` will yield; None where the client did not say."""
        length = self._body.length
        return length if length is None or patch is None else length + patch.growth

    async def patched(self, patch: Patch | None) -> AsyncIterator[bytes]:
        """The body from its start. Each target's call takes a new one; an old one may still be waiting for the client."""
        position = 0
        put = False
        while chunk := await self._at(position):
            start, position = position, position + len(chunk)
            if patch is None or (not put and position <= patch.start):
                yield chunk
                continue
            if not put:
                put = True
                yield chunk[: patch.start - start] + patch.value
            if position > patch.end:
                yield chunk[max(0, patch.end - start) :]

    @property
    def seen_bytes(self) -> int:
        return self._scanned

    async def _at(self, position: int) -> bytes:
        try:
            chunk = await self._body.at(position)
            if self._scanner is not None and position + len(chunk) > self._scanned:
                self._scanner.feed(chunk[self._scanned - position :])
            elif self._scanner is not None and not chunk:
                self._scanner.finish()
        except BodyRefused as refusal:
            self.problem = Rejected(Failure(refusal.kind, str(refusal)))
            raise self.problem from None
        except FormError as error:
            self.problem = Rejected(Failure(FailureKind.BAD_REQUEST, str(error), param=error.param))
            raise self.problem from None
        except ClientGone as gone:
            self.problem = gone
            raise
        self._scanned = max(self._scanned, position + len(chunk))
        self.whole = self.whole or not chunk
        return chunk

    def close(self) -> None:
        self._body.close()
