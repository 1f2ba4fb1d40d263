"""How `penstock bench` asks: streamed chat requests through a running server, a few at a time, each name in its turn."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from proxy.cli import client
from proxy.cli.admin_client import Address, NoAnswer, code_of, message_of, printable, unreached
from proxy.cli.bench_cap import SpendingCap, worst_case
from proxy.cli.bench_report import Row, Sample
from proxy.core.routing import RoutingTable
from proxy.core.sse import EventScanner, data_of
from proxy.phases.call import OUTPUT_CAPS
from proxy.phases.stream_cost import HEADER
from proxy.providers import errors

SILENCE_S: Final = 300.0
PROMPTS_MAX: Final = 10_000
FILE_BYTES_MAX: Final = 64 * 1024 * 1024
OWNER: Final = "penstock"  # of a route, in the listing of models
PROMPTS: Final = (
    "In two sentences: what does a penstock do in a hydroelectric power station?",
    "Write a limerick about water.",
    "List five rivers, one a line, with the sea each of them flows into.",
)
_COMMENT: Final = b": penstock "


class BadPrompts(Exception):  # noqa: N818 - a message for whoever ran the command
    """The file holds what cannot be asked, or nothing."""


def prompts(file: Path | None) -> list[dict[str, Any]]:
    """The bodies of a file, without a model: a line is a chat body, a line of the batch form, or a question as text.

    Errors: BadPrompts, OSError.
    """
    if file is None:
        return [_question(text) for text in PROMPTS]
    if file.stat().st_size > FILE_BYTES_MAX:
        raise BadPrompts(f"{file} is larger than {FILE_BYTES_MAX // 1024 // 1024} MiB.")
    lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    found = [_body(line.strip(), f"{file}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise BadPrompts(f"{file} holds no prompts.")
    return found[:PROMPTS_MAX]


def _body(line: bytes, where: str) -> dict[str, Any]:
    if not line.startswith(b"{"):
        return _question(line.decode("utf-8", "replace"))
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadPrompts(f"{where}: no JSON: {error}") from None
    body = value.get("body", value)
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise BadPrompts(f'{where}: expected a chat body: {{"messages": [...]}}')
    return body


def _question(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


@dataclass(frozen=True, slots=True)
class Bench:
    """One run. ``requests``: to each name. ``output_cap``: for a body that sets none. ``table``: what prices are by."""

    where: Address
    key: str | None
    prompts: Sequence[Mapping[str, Any]]
    requests: int
    concurrency: int
    output_cap: int
    limit_nanousd: int
    table: RoutingTable

    def run(self, names: Sequence[str], rows: list[Row], advance: Callable[[], None]) -> None:
        """Fill ``rows``, one for each name, or each route of the server where there is none. Raises `NoAnswer`."""
        client.run(self._run(names, rows, advance))

    async def _run(self, names: Sequence[str], rows: list[Row], advance: Callable[[], None]) -> None:
        # An answer that is kept says nothing of its target.
        headers = {HEADER: "comment", "cache-control": "no-store", **client.shown(self.key)}
        async with client.session(headers, SILENCE_S, self.concurrency) as session:
            rows += [Row(name, unsent=self.requests) for name in names or await _routes(session, self.where)]
            cap = SpendingCap(self.limit_nanousd)
            waiting = _turns(rows, self.requests)

            async def work() -> None:
                for number, row in waiting:  # shared: each takes the next one
                    await self._one(session, cap, row, self.prompts[number % len(self.prompts)])
                    advance()

            async with asyncio.TaskGroup() as group:
                for _ in range(self.concurrency):
                    group.create_task(work())

    async def _one(self, session: aiohttp.ClientSession, cap: SpendingCap, row: Row, prompt: Mapping[str, Any]) -> None:
        said = [prompt[name] for name in OUTPUT_CAPS if type(prompt.get(name)) is int]
        body = {**prompt, "model": row.name, "stream": True}
        if not said:
            body["max_tokens"] = self.output_cap
        worst = worst_case(self.table, row.name, body, max(said, default=self.output_cap))
        held = await cap.hold(row.name, worst)
        if held is None:
            return
        sample = None
        try:
            sample = await self._measured(session, body, held)
            row.samples.append(sample)
            row.unsent -= 1
        finally:
            await cap.settle(row.name, held, held if sample is None else sample.spent_nanousd)

    async def _measured(self, session: aiohttp.ClientSession, body: Mapping[str, Any], held: int) -> Sample:
        """Ask once. What broke off may be billed, so all that was held counts. Raises `NoAnswer`."""
        began = time.monotonic()
        try:
            url = f"{self.where}/v1/chat/completions"
            async with session.post(url, data=orjson.dumps(body), allow_redirects=False) as answer:
                if answer.status != 200:
                    return _refused(answer, await answer.content.read(64 * 1024), time.monotonic() - began, held)
                return await _streamed(answer, began, held)
        except aiohttp.ClientConnectorError as error:
            raise unreached(self.where, error.os_error) from None
        except TimeoutError:
            why = f"no byte within {SILENCE_S:.0f} s"
        except aiohttp.ClientError as error:
            why = f"broke off: {type(error).__name__}"
        return Sample(time.monotonic() - began, assumed_nanousd=held, error=why)


def _turns(rows: Sequence[Row], requests: int) -> Iterator[tuple[int, Row]]:
    """Each name in its turn, so that an hour's weather is the same for all of them."""
    return ((number, row) for number in range(requests) for row in rows)


async def _streamed(answer: aiohttp.ClientResponse, began: float, held: int) -> Sample:
    first_s: float | None = None
    told: Mapping[str, Any] = {}
    error: str | None = None
    async for raw in _events(answer):
        if raw.startswith(_COMMENT):
            told = _object(raw[len(_COMMENT) :])
            continue
        document = _object(data_of(raw) or b"")
        if errors.is_error(document):
            error = str(document["error"].get("code") or "error") if isinstance(document["error"], dict) else "error"
        elif first_s is None and _has_content(document):
            first_s = time.monotonic() - began
    cost = _nanousd(told.get("cost_usd"))
    return Sample(
        time.monotonic() - began,
        first_s,
        output_tokens=_count(told.get("output_tokens")),
        input_tokens=_count(told.get("input_tokens")),
        cost_nanousd=cost,
        assumed_nanousd=held if cost is None else 0,
        answered_by="/".join(answer.headers.get(f"x-penstock-{name}", "?") for name in ("provider", "model")),
        error=error or (None if first_s is not None else "no content"),
    )


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    scanner = EventScanner()
    async for chunk in answer.content.iter_any():
        for event in scanner.feed(chunk):
            yield event.rest


def _refused(answer: aiohttp.ClientResponse, raw: bytes, total_s: float, held: int) -> Sample:
    """A refusal costs nothing where no target was asked; else it may."""
    document = _object(raw)
    code = code_of(document)
    told = str(code) if code is not None else message_of(document) or "is it Penstock?"
    asked = answer.headers.get("x-penstock-attempts", "0") != "0"
    cost = None if asked else 0
    return Sample(
        total_s, cost_nanousd=cost, assumed_nanousd=held if asked else 0, error=printable(f"{answer.status} {told}")
    )


async def _routes(session: aiohttp.ClientSession, where: Address) -> list[str]:
    """The routes that the server could serve now. Raises `NoAnswer`."""
    try:
        async with session.get(f"{where}/v1/models", allow_redirects=False) as answer:
            document = _object(await answer.read())
    except aiohttp.ClientConnectorError as error:
        raise unreached(where, error.os_error) from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise NoAnswer(f"{where} did not list its models: {type(error).__name__}") from None
    listed = document.get("data")
    names = [one["id"] for one in listed if one.get("owned_by") == OWNER] if isinstance(listed, list) else []
    if not names:
        raise NoAnswer(f"{where} lists no routes that can be served now: {message_of(document) or 'name one'}")
    return names


def _has_content(document: Mapping[str, Any]) -> bool:
    choices = document.get("choices")
    deltas = [one.get("delta") or {} for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
    return any(value for delta in deltas for name, value in delta.items() if name != "role")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _nanousd(value: object) -> int | None:
    try:
        return None if value is None else int(Decimal(str(value)) * 10**9)
    except InvalidOperation:
        return None


def _count(value: object) -> int:
    return value if type(value) is int else 0
