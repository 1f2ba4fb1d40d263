"""S20: whatever a client sends, the upstream sees the requests that a strict reader finds in it, or none.

Each row of the corpus is sent raw, with a good request behind it on the same connection: glued to it, and after its answer.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.conftest import Start
from tests.gateway import Answer, Connection, Gateway
from tests.security.corpus import CHUNKED, LAST, Row, body, chunk, good, head, relayed, rows
from tests.security.oracle import Oracle

ROWS = list(rows())
KINDS = sorted({row.kind for row in ROWS})


@pytest.fixture
async def oracle() -> AsyncIterator[Oracle]:
    oracle = Oracle()
    yield oracle
    await oracle.stop()


@pytest.fixture
async def behind(oracle: Oracle, start: Start, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """Penstock before the oracle; impatient, because half of the rows are cut."""
    monkeypatch.setattr("proxy.edge.request_body.PROGRESS_S", 0.2)
    monkeypatch.setattr("proxy.edge.connections.HEAD_S", 0.2)
    monkeypatch.setattr("proxy.edge.connections.TICK_S", 0.05)
    return await start(
        f'providers: {{sim: {{like: vllm, base_url: "{await oracle.start()}"}}}}\ndefault_provider: sim',
        admin_key="k" * 40,
    )


def test_the_corpus_is_large_and_no_row_stands_twice() -> None:
    assert len(ROWS) >= 300
    assert len({(row.kind, row.name) for row in ROWS}) == len(ROWS)
    assert len({row.raw for row in ROWS}) == len(ROWS)
    assert sum(row.valid for row in ROWS) >= 20


@pytest.mark.parametrize("glued", [True, False], ids=["glued", "apart"])
@pytest.mark.parametrize("kind", KINDS)
async def test_s20_s21_s27_s49_nothing_is_smuggled(kind: str, glued: bool, behind: Gateway, oracle: Oracle) -> None:
    wrong = []
    for number, row in enumerate(row for row in ROWS if row.kind == kind):
        oracle.seen.clear()
        after = f"good-{number}"
        answers = await _play(behind, row, after, glued=glued)
        problem = _problem(row, answers, [request.body for request in oracle.seen], relayed(after))
        if problem is not None:
            wrong.append(f"{row.name}: {problem}: {[(one.status, one.end, one.body[:200]) for one in answers]}")
    assert not wrong, "\n".join(wrong)
    assert oracle.violations == []
    assert behind.log.bugs == []


async def _play(gateway: Gateway, row: Row, after: str, *, glued: bool) -> list[Answer]:
    """All answers on the connection; the last one tells how it ended, or is the answer to the good request."""
    client = await Connection.open(gateway.port)
    answers: list[Answer] = []
    try:
        client.writer.write(row.raw + good(after) if glued else row.raw)
        while len(answers) < 8:
            answers.append(await client.answer(within_s=1.0))
            if answers[-1].end != "whole" or _served(answers) > len(row.holds) or _closes(answers[-1]):
                break
            if not glued and len(answers) == max(1, len(row.holds)):
                client.writer.write(good(after))
    finally:
        await client.close()
    return answers


def _served(answers: list[Answer]) -> int:
    return sum(b'"text":"pipe"' in answer.body for answer in answers)


def _closes(answer: Answer) -> bool:
    return answer.headers.get("connection") == "close" or answer.raw.startswith(b"HTTP/1.0")


def _problem(row: Row, answers: list[Answer], seen: list[bytes], after: bytes) -> str | None:
    """What of it must not be."""
    held = [one if isinstance(one, bytes) else relayed(one) for one in row.holds]
    if relayed("smuggled") in seen:
        return "smuggled"
    if seen not in ([], held, [*held, after], [after]):
        return f"the upstream saw {seen!r}"
    if row.valid and seen not in (held, [*held, after]):
        return "refused"
    statuses = [answer.status for answer in answers if answer.status]
    if any(status >= 500 for status in statuses):
        return "blamed on the server"
    if _served(answers) != len(seen):
        return f"{len(seen)} requests went up, {_served(answers)} answers came down"
    if after not in seen and answers[-1].end not in ("eof", "reset") and not _closes(answers[-1]):
        return "left open"
    if not statuses and answers[-1].end == "open":
        return "neither refused nor served"
    return None


@pytest.mark.parametrize("pieces", [1, 2, 3])
async def test_s20_a_trailer_is_no_field_of_the_next_request(pieces: int, behind: Gateway, oracle: Oracle) -> None:
    """Found by the corpus: aiohttp's parser keeps a body's last trailer, and begins the next request's head with it."""
    raw = head(CHUNKED) + chunk(body("own")) + b"0\r\nUser-Agent: evil\r\n\r\n"
    ends = {1: [len(raw)], 2: [-20, len(raw)], 3: [-20, -2, len(raw)]}[pieces]
    client = await Connection.open(behind.port)
    began = 0
    for end in ends:
        client.writer.write(raw[began:end])
        began = end
        await asyncio.sleep(0.02)
    assert (await client.answer()).status == 200
    client.writer.write(good("next"))
    assert (await client.answer()).end in ("eof", "reset")
    await client.close()
    assert [request.body for request in oracle.seen] == [relayed("own")]
    client = await Connection.open(behind.port)
    for mark in ("one", "two"):  # without trailers a connection stays
        client.writer.write(head(CHUNKED) + chunk(body(mark)) + LAST)
        assert (await client.answer()).status == 200
    await client.close()
    assert all(request.header(b"user-agent") is None for request in oracle.seen)
