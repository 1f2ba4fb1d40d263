"""How `penstock batch` asks: the requests that have no answer yet, a few at a time, as a client like any other.

A row that failed for a reason that passes (a limit, an outage, an answer that broke off) is asked again, after the pause
that the server names or else longer and longer ones. What all others would fare alike (nobody listens, the key is refused)
ends the run; its rows are left for the next one.
"""

import asyncio
import base64
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

import aiohttp
import orjson

from proxy.cli import client
from proxy.cli.admin_client import Address, NoAnswer, code_of, message_of, printable, unreached
from proxy.cli.batch_file import Asked, Broken, OutFile, Response
from proxy.core import media_type
from proxy.core.backoff import BackoffPolicy, delay
from proxy.providers import errors

SENDS_MAX: Final = 6  # of one row in one run
WAIT_S_MAX: Final = 300.0  # a row whose server names a longer pause is left for another run
SILENCE_S: Final = 900.0  # an answer that comes in one piece is silent until it is there
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
STANDARD: Final = BackoffPolicy(first_s=0.5, factor=2.0, max_s=30.0, jitter=0.25)

_LATER: Final = frozenset({408, 409, 425, 429})
_STAYS: Final = frozenset({"provider_inactive", "internal_error", "not_implemented"})  # until somebody does something


@dataclass(slots=True)
class Score:
    """What this run did. Units: USD, as far as the server said what an answer cost."""

    answers: int = 0
    succeeded: int = 0
    failed: int = 0
    repeats: int = 0
    cost_usd: Decimal = Decimal(0)
    first_failure: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One run: where it asks, whose key, and how patient it is."""

    where: Address
    key: str | None
    concurrency: int
    sends_max: int = SENDS_MAX
    backoff: BackoffPolicy = STANDARD

    def run(self, asked: Iterator[Asked], out: OutFile, score: Score, advance: Callable[[], None]) -> None:
        """Ask all of them, and write each answer down as it comes. Raises `NoAnswer`, OSError of the file."""
        client.run(self._run(asked, out, score, advance))

    async def _run(self, asked: Iterator[Asked], out: OutFile, score: Score, advance: Callable[[], None]) -> None:
        async with client.session(client.shown(self.key), SILENCE_S, self.concurrency) as session:
            stopped: list[NoAnswer] = []

            async def work() -> None:
                for one in asked:  # shared: each takes the next one
                    outcome = await self._answered(session, one, score)
                    if isinstance(outcome, NoAnswer):
                        stopped.append(outcome)
                    else:
                        out.write(one, outcome)
                        _count(score, one, outcome)
                        advance()
                    if stopped:  # what is on its way is paid for, so the others come to their ends
                        return

            async with asyncio.TaskGroup() as group:
                for _ in range(self.concurrency):
                    group.create_task(work())
            if stopped:
                raise stopped[0]

    async def _answered(self, session: aiohttp.ClientSession, one: Asked, score: Score) -> Response | Broken | NoAnswer:
        """Ask until there is an answer, or a failure that stays. NoAnswer: no other would fare better."""
        rng = random.Random()  # noqa: S311 - it spreads repeats
        for sent in range(1, self.sends_max + 1):
            outcome, pause_s = await self._sent(session, one, score)
            last = sent == self.sends_max
            if pause_s is None or last or pause_s > WAIT_S_MAX:
                return outcome
            score.repeats += 1
            await asyncio.sleep(max(pause_s, delay(sent, self.backoff, rng)))
        raise AssertionError("the last send returns")

    async def _sent(
        self, session: aiohttp.ClientSession, one: Asked, score: Score
    ) -> tuple[Response | Broken | NoAnswer, float | None]:
        """One send, and the pause before another one helps; None: none does."""
        try:
            url = f"{self.where}{one.request.path}"
            async with session.post(url, data=one.request.body, allow_redirects=False) as answer:
                return self._judged(answer, await _whole(answer), score)
        except aiohttp.ClientConnectorError as error:
            # Before the first answer it is the address that is wrong; afterwards the server may be starting anew.
            return unreached(self.where, error.os_error), 0.0 if score.answers else None
        except TimeoutError:
            return Broken("timeout", f"no answer within {SILENCE_S:.0f} s"), None  # it may be paid for already
        except aiohttp.ClientError as error:
            why = printable(str(error) or type(error).__name__)
            return Broken("connection_error", f"the answer broke off: {why}"), 0.0

    def _judged(
        self, answer: aiohttp.ClientResponse, raw: bytes | None, score: Score
    ) -> tuple[Response | Broken | NoAnswer, float | None]:
        score.answers += 1
        if raw is None:
            return Broken("too_large", f"the answer is larger than {ANSWER_BYTES_MAX // 1024 // 1024} MiB"), None
        score.cost_usd += _cost(answer.headers)
        response = Response(answer.status, answer.headers.get("x-request-id"), _as_json(answer, raw))
        if response.is_good and "x-penstock-cache" not in answer.headers:
            return NoAnswer(f"what answers at {self.where} is not Penstock. Name Penstock's with --url."), None
        if answer.status == 401:
            return NoAnswer(f"the server at {self.where} does not take the key: {_told(raw)}"), None
        if response.is_good or not _passes(answer.status, raw):
            return response, None
        _, report = errors.of_answer(answer.status, answer.headers, raw, time.time())
        return response, report.retry_after_s or 0.0


def _count(score: Score, one: Asked, outcome: Response | Broken) -> None:
    if isinstance(outcome, Response) and outcome.is_good:
        score.succeeded += 1
        return
    score.failed += 1
    if score.first_failure is None:
        told = outcome.message if isinstance(outcome, Broken) else f"{outcome.status}: {_told(outcome.body)}"
        score.first_failure = f"{printable(one.custom_id)}: {told}"


def _told(raw: bytes) -> str:
    return message_of(_parsed(raw)) or "the answer is no error of Penstock"


def _parsed(raw: bytes) -> object:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _passes(status: int, raw: bytes) -> bool:
    """Whether the same request may fare better after a while.

    `x-should-retry` is about a repeat at once, and says no where every target was tried: here there is more patience.
    """
    return status in _LATER or (status >= 500 and code_of(_parsed(raw)) not in _STAYS)


async def _whole(answer: aiohttp.ClientResponse) -> bytes | None:
    """The body; None where it is too large to be kept."""
    raw = bytearray()
    async for chunk in answer.content.iter_any():
        raw += chunk
        if len(raw) > ANSWER_BYTES_MAX:
            return None
    return bytes(raw)


def _cost(headers: Mapping[str, str]) -> Decimal:
    try:
        return Decimal(headers.get("x-penstock-cost-usd", "0"))
    except InvalidOperation:
        return Decimal(0)


def _as_json(answer: aiohttp.ClientResponse, raw: bytes) -> bytes:
    """The body as it came where it is JSON; what is none (speech) in an object, as base64."""
    content_type = answer.headers.get("content-type")
    if media_type.is_json(content_type):
        if _parsed(raw) is not None:
            return raw
        content_type = "application/octet-stream"
    return orjson.dumps({"content_type": content_type, "base64": base64.b64encode(raw).decode()})
