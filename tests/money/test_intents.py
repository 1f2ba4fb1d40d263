"""What the journal knows of an exchange before its end: killed there, it is booked at what its attempts may have cost."""

import asyncio

import orjson
import pytest

from proxy.core import journal_record
from proxy.core.ledger import Intent, interrupted
from tests.conftest import Start
from tests.gateway import CHAT, Connection, Gateway, send
from tests.money.held import Held
from tests.money.stage import IN, OUT, agree, budget, standings


def intents(gateway: Gateway) -> list[Intent]:
    """As they stand on the disk."""
    (segment,) = (gateway.data / "journal").glob("*/*.journal")
    return [one for one in journal_record.records(segment.read_bytes()) if isinstance(one, Intent)]


def config(first: str, second: str) -> str:
    return f"""
providers:
  a: {{like: vllm, base_url: "{first}", price: {{"*": {{input: 1, output: 10}}}}}}
  b: {{like: vllm, base_url: "{second}", price: {{"*": {{input: 2, output: 20}}}}}}
defaults: {{timeouts: {{first_event: 10s}}}}
routes: {{alone: {{tiers: [b/m]}}, pair: {{tiers: [a/html, b/m]}}, free: {{tiers: [a/500, b/m]}}}}
"""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ["alone", "pair", "free"])
async def test_what_is_under_way_is_written_down_at_its_worst_case(
    route: str, start: Start, upstream_url: str, held: Held, *, stream: bool
) -> None:
    gateway = await start(config(upstream_url, await held.start()), change=budget())
    body = orjson.dumps({"model": route, "stream": stream, "max_tokens": 50, "messages": []})
    asking = asyncio.create_task(send(gateway.port, CHAT, body, {"x-request-id": "mine", "x-penstock-tags": "a=b"}))
    await held.until_seen(1)
    bound = -(-len(body) // 2) * 2 * IN + 50 * 2 * OUT
    *_, last = intents(gateway)
    assert last.attempt == len(intents(gateway)) == (1 if route == "alone" else 2)
    wasted = last.worst_case_nanousd - bound
    assert (wasted > 0) == (route == "pair"), "what the first one may have read is owed too"
    assert {kept for _, kept in await standings(gateway)} == {max(last.worst_case_nanousd, bound)}
    row = interrupted(last)
    assert (row.outcome, row.cost_nanousd, row.cost_source) == ("interrupted", bound + wasted, "estimated")
    assert (row.request_id, row.tags, row.provider, row.route) == ("mine", (("a", "b"),), "b", route)
    held.go.set()
    assert (await asking).status == 200
    (settled,) = await agree(gateway, 1)
    assert settled.id == row.id, "so that whoever delivers both books one"
    assert settled.cost_nanousd <= row.cost_nanousd


async def test_an_upload_that_hides_its_length_is_held_as_if_it_were_as_long_as_one_may_be(
    start: Start, held: Held
) -> None:
    """200 MiB at two bytes a millisecond, at 0.006 USD a minute, are 10.49 USD."""
    price = 'price: {"*": {input: 0, output: 0, audio_minute: 0.006}}'
    gateway = await start(
        f'providers: {{p: {{like: vllm, base_url: "{await held.start()}", {price}}}}}', change=budget(10 * 10**9)
    )
    form = (
        b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\np/m\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n' + b"x" * 4000 + b"\r\n--b--\r\n"
    )
    client = await Connection.open(gateway.port)
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: p\r\ncontent-type: multipart/form-data; boundary=b\r\n"
    client.writer.write(head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(form), form))
    got = await client.answer()
    await client.close()
    assert (got.status, got.error["code"], held.seen) == (402, "budget_exceeded", [])
    await agree(gateway, 1)
