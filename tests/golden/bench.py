"""Penstock between a raw client and the replay, one provider for each of the catalogue's, and the golden cases."""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

from tests.core.streams import chunkings, cut_at
from tests.gateway import Answer, Connection, Gateway, start_gateway
from tests.golden import oracle
from tests.golden.replay import Framing, Received, Replay, Scripted

PROVIDERS = (
    "openai",
    "anthropic",
    "mistral",
    "gemini",
    "dashscope",
    "deepseek",
    "moonshot",
    "zhipu",
    "groq",
    "xai",
    "perplexity",
    "openrouter",
    "huggingface",
    "azure",
    "together",
    "fireworks",
    "cerebras",
    "ollama",
    "vllm",
)
PATHS = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "responses": "/responses",
    "messages": "/messages",
    "embeddings": "/embeddings",
    "moderations": "/moderations",
    "images": "/images/generations",
    "rerank": "/rerank",
}
LOCAL = ("ollama", "vllm")
CREDENTIAL = "replayed-credential-0123456789"
_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Case:
    """One golden case; what ``expected`` holds: `outcome`, `status`, `usage`, of failures `code` and `message`, of a
    refusal `as_it_came`, of a limit `retry_after`.
    """

    name: str
    provider: str
    api: str
    status: int
    headers: list[tuple[str, str]]
    request: bytes
    body: bytes
    streamed: bool
    expected: Mapping[str, Any]

    @property
    def path(self) -> str:
        return f"/v1{PATHS[self.api]}"

    @property
    def asked(self) -> str:
        asked: str = json.loads(self.request)["model"]
        return asked

    @property
    def choices(self) -> int:
        choices: int = json.loads(self.request).get("n", 1)
        return choices

    @property
    def asks_usage(self) -> bool:
        return oracle.asks_usage(self.provider, self.api, self.request)

    @property
    def relayed(self) -> bytes:
        """What the client must get of an answer that ends well."""
        return oracle.relayed(self.body, withhold=self.asks_usage) if self.streamed else self.body

    def scripted(self, writes: Sequence[bytes] | None = None, framing: Framing = Framing.CHUNKED) -> Scripted:
        return Scripted([self.body] if writes is None else writes, self.status, self.headers, framing)


def golden_cases() -> list[Case]:
    return [_case(path.parent) for path in sorted(_FOLDER.glob("*/*/case.json"))]


def _case(folder: Path) -> Case:
    facts = json.loads((folder / "case.json").read_text("utf-8"))
    (upstream,) = folder.glob("upstream.*")
    return Case(
        name=f"{folder.parent.name}/{folder.name}",
        provider=facts["provider"],
        api=facts["api"],
        status=facts["status"],
        headers=[("Content-Type", facts["content_type"]), *((name, value) for name, value in facts["headers"])],
        request=(folder / "request.json").read_bytes(),
        body=upstream.read_bytes(),
        streamed=upstream.suffix == ".sse",
        expected=facts["expected"],
    )


@dataclass(slots=True)
class Bench:
    """One gateway before one replay. ``exchange`` may be called as often as wanted, one at a time."""

    gateway: Gateway
    replay: Replay

    @classmethod
    async def start(cls, more: str = "") -> "Bench":
        replay = await Replay().start()
        providers = "".join(
            f'  replayed-{name}: {{like: {name}, base_url: "{replay.origin}/v1"'
            + ("}\n" if name in LOCAL else ", api_key: env:REPLAYED_KEY}\n")
            for name in PROVIDERS
        )
        gateway = await start_gateway(f"providers:\n{providers}{more}", {"REPLAYED_KEY": CREDENTIAL})
        return cls(gateway, replay)

    async def stop(self) -> None:
        await self.gateway.stop()
        await self.replay.stop()
        for _ in range(5):
            await asyncio.sleep(0)  # what was just closed gives its sockets back in the loop's next turns

    async def exchange(
        self, path: str, request: bytes, scripted: Scripted, headers: Mapping[str, str] | None = None
    ) -> "Seen":
        self.gateway.forgive()
        self.replay.answer = scripted
        self.replay.received.clear()
        self.gateway.log.exchanges.clear()
        connection = await Connection.open(self.gateway.port)
        try:
            connection.post(path, request, headers)
            answer = await connection.answer()
        finally:
            await connection.close()
        return Seen(answer, await self.record(), list(self.replay.received))

    async def ask(self, case: Case, scripted: Scripted | None = None) -> "Seen":
        seen = await self.exchange(case.path, case.request, scripted or case.scripted())
        assert len(seen.received) == 1
        return seen

    async def record(self) -> dict[str, Any]:
        log = self.gateway.log
        async with asyncio.timeout(5):
            while not log.exchanges:
                await asyncio.sleep(0)
        assert not log.bugs
        (record,) = log.exchanges
        return record


@dataclass(frozen=True, slots=True)
class Seen:
    """What both sides and the log saw of one exchange."""

    answer: Answer
    record: dict[str, Any]
    received: list[Received]

    @property
    def header_pairs(self) -> list[tuple[str, str]]:
        """The answer's headers, names in lower case, a field on several lines several times."""
        head = self.answer.raw.partition(b"\r\n\r\n")[0].decode("latin-1")
        lines = (line.partition(":") for line in head.split("\r\n")[1:])
        return [(name.lower(), value.strip()) for name, _, value in lines]

    @property
    def own_headers(self) -> dict[str, str]:
        return {name: value for name, value in self.header_pairs if name.startswith("x-penstock-")}


def edges(body: bytes) -> list[int]:
    """Every offset at, before and behind a line end."""
    offsets = {match.start() + by for match in re.finditer(rb"[\r\n]", body) for by in (-1, 0, 1)}
    return sorted(offset for offset in offsets if 0 < offset < len(body))


def deliveries(scripted: Scripted, *, by_byte: bool = True) -> Iterable[tuple[str, Scripted]]:
    """The ways in which an answer may arrive: whole in each framing, then chunked in every manner, the framings in turn."""
    body = b"".join(scripted.writes)
    for framing in Framing:
        yield f"whole, {framing.value}", replace(scripted, writes=[body], framing=framing)
    ways = [*chunkings(body), ("around line ends", cut_at(body, edges(body)))]
    ways += [("by event, a byte late", _late(body))]
    for (name, writes), framing in zip(ways, cycle(Framing), strict=False):
        if name != "whole" and (by_byte or name != "by byte"):
            yield f"{name}, {framing.value}", replace(scripted, writes=writes, framing=framing)


def _late(body: bytes) -> list[bytes]:
    ends, at = [], 0
    for event in oracle.events_of(body):
        at += len(event)
        ends.append(at + 1)
    return cut_at(body, [end for end in ends if end < len(body)])
