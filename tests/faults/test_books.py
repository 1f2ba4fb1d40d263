"""After every fault the books are right: one row, the budgets spent its cost, nothing is held.

A token in costs 1,000 nano-USD, one out 10,000. ``cost``: `none` (nothing can have been billed), `input` (estimated, of
each attempt that the provider may have read), `partial` (estimated, within what was held), `reported`, `estimated`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from proxy.core.ledger import LedgerRow
from proxy.phases.hedge import Hedging
from proxy.simulator.server import Simulator
from tests.conftest import Start
from tests.edge.recorder import answer
from tests.faults.test_after_content import BROKEN, BROKEN_CHAT, WHOLE
from tests.faults.test_before_content import ALONE, ALONE_JSON, ALONE_STREAM, CASES
from tests.gateway import CHAT, Connection, Gateway, closed_port, send
from tests.money.stage import IN, OUT, PRICE, agree, budget, stores_of

TIMEOUTS = "timeouts: {connect: 400ms, first_event: 400ms, idle: 300ms, silent: 500ms, total: 3s}"
PATIENT = "timeouts: {connect: 20s, first_event: 20s, idle: 20s, silent: 20s}"
CAP = 100

pytestmark = pytest.mark.usefixtures("rows_at_once")

# What a provider may have read before it failed, so that its input is booked.
READ = {"upstream_protocol", "upstream_incomplete", "upstream_timeout"}
READ_SCRIPTS = {"refuse", "hangup", "half-head"}


def config(urls: dict[str, str], routes: str, timeouts: str = TIMEOUTS) -> str:
    providers = "\n".join(
        f'  {name}: {{like: vllm, base_url: "{url}", price: {{"*": {PRICE}}}}}' for name, url in urls.items()
    )
    return f"providers:\n{providers}\ndefaults: {{{timeouts}}}\nroutes:\n{routes}\n"


async def started(start: Start, url: str, script: str, timeouts: str = TIMEOUTS) -> Gateway:
    routes = f'  alone: {{tiers: ["sim/{script}"]}}\n  pair: {{tiers: ["sim/{script}", other/plain]}}'
    return await start(config({"sim": url, "other": url}, routes, timeouts), change=budget())


def check_failed(row: LedgerRow, script: str, status: int, code: str, sends: int) -> None:
    assert (row.outcome, row.status, row.code, row.attempts) == ("failed", status, code, sends)
    if code in READ or script in READ_SCRIPTS:
        assert row.cost_source == "estimated"
        assert 10 * IN < row.cost_nanousd < 200 * IN, "about its input"
    else:
        assert (row.cost_nanousd, row.cost_source) == (0, "free")


@pytest.mark.parametrize(("row", "stream"), CASES, ids=str)
async def test_a_fault_before_content(
    row: tuple[str, int, str, int], stream: bool, start: Start, upstream_url: str
) -> None:
    script, status, code, sends = row
    gateway = await started(start, upstream_url, script)
    alone = await gateway.ask("alone", stream=stream, max_tokens=CAP)
    assert alone.status == status
    gateway.forgive()
    pair = await gateway.ask("pair", stream=stream, max_tokens=CAP)
    assert pair.status == 200
    first, second = await agree(gateway, 2)
    check_failed(first, script, status, code, sends)
    assert (second.outcome, second.attempts, second.fell_back, second.provider) == ("ok", 2, True, "other")
    wasted = first.cost_nanousd // sends
    own = second.input_tokens * IN + second.output_tokens * OUT
    # Of the two routes' names one is a letter longer, and so perhaps a token.
    assert abs(second.cost_nanousd - own - wasted) <= IN
    if wasted:
        assert second.cost_source == "estimated"
    else:
        assert (second.cost_nanousd, second.cost_source) == (own, "configured")
    if not stream:
        told = pair.headers["x-penstock-cost-usd"]
        assert round(float(told) * 1e9) == second.cost_nanousd, "one figure, wherever it is told"


def test_every_row_of_the_table_is_here() -> None:
    assert len(CASES) == 2 * len(ALONE) + len(ALONE_JSON) + len(ALONE_STREAM)


@pytest.mark.parametrize("script", [*(one for one, _ in BROKEN), *(one for one, _ in BROKEN_CHAT)])
async def test_a_fault_after_content(script: str, start: Start, upstream_url: str) -> None:
    gateway = await started(start, upstream_url, script)
    answer = await gateway.ask("alone", stream=True, max_tokens=CAP)
    assert (answer.status, answer.end) == (200, "eof")
    (row,) = await agree(gateway, 1)
    assert (row.outcome, row.attempts, row.estimated) == ("partial", 1, True)
    relayed = answer.body.count(b'"content":"') + answer.body.count(b'"arguments":"')
    assert min(relayed, CAP) <= row.output_tokens <= CAP
    assert row.cost_nanousd == row.input_tokens * IN + row.output_tokens * OUT
    assert row.input_tokens > 10


async def test_f052_two_choices_of_which_one_is_cut(start: Start, upstream_url: str) -> None:
    gateway = await started(start, upstream_url, "n-cut:3")
    await gateway.ask("alone", stream=True, max_tokens=CAP, n=2)
    (row,) = await agree(gateway, 1)
    assert (row.outcome, row.estimated) == ("partial", True)
    assert 0 < row.output_tokens <= 2 * CAP


@pytest.mark.parametrize("script", [*WHOLE, "no-done", "after-done-silence"])
async def test_what_ended_well_costs_what_was_reported(script: str, start: Start, upstream_url: str) -> None:
    gateway = await started(start, upstream_url, script, PATIENT)
    answer = await gateway.ask("alone", stream=True, max_tokens=CAP)
    assert (answer.status, answer.end) == (200, "whole")
    (row,) = await agree(gateway, 1)
    assert (row.outcome, row.attempts, row.estimated) == ("ok", 1, script == "no-usage")
    assert row.cost_nanousd == row.input_tokens * IN + row.output_tokens * OUT
    if script == "no-usage":
        assert row.output_tokens <= CAP, "F050: an estimate stays within what was held"


async def test_an_estimate_is_never_above_the_cap(start: Start, upstream_url: str) -> None:
    """Eight MiB of a picture or of log probabilities are not two million tokens."""
    gateway = await started(start, upstream_url, "big-event:8388608")
    client = await Connection.open(gateway.port)
    client.post(CHAT, orjson.dumps({"model": "alone", "stream": True, "max_tokens": 7, "messages": []}))
    await client.until(b'"content":"')
    client.reset()
    (row,) = await agree(gateway, 1)
    assert (row.outcome, row.output_tokens) == ("client_cancelled", 7)


# Faults that no script plays: connections, refusals of our own.


async def test_f001_nothing_listens(start: Start) -> None:
    url = f"http://127.0.0.1:{closed_port()}/v1"
    gateway = await start(config({"gone": url}, "  alone: {tiers: [gone/m]}"), change=budget())
    assert (await gateway.ask("alone")).status == 502
    (row,) = await agree(gateway, 1)
    assert (row.outcome, row.attempts, row.cost_nanousd) == ("failed", 3, 0)


async def test_f002_nothing_listens_at_the_first(start: Start, upstream_url: str) -> None:
    url = f"http://127.0.0.1:{closed_port()}/v1"
    gateway = await start(
        config({"gone": url, "sim": upstream_url}, "  pair: {tiers: [gone/m, sim/plain]}"), change=budget()
    )
    assert (await gateway.ask("pair")).status == 200
    (row,) = await agree(gateway, 1)
    assert (row.attempts, row.provider, row.estimated, row.cost_source) == (2, "sim", False, "configured")


@pytest.mark.parametrize(
    ("script", "status", "outcome"),
    [("400", 400, "refused"), ("413", 413, "refused"), ("redirect:302:http://127.0.0.1:9/x", 502, "failed")],
)
async def test_f016_f020_what_is_sent_once_is_booked_once(
    script: str, status: int, outcome: str, start: Start, upstream_url: str
) -> None:
    gateway = await started(start, upstream_url, script)
    answer = await gateway.ask("sim/" + script, stream=True)
    (row,) = await agree(gateway, 1)
    assert (answer.status, row.outcome, row.attempts) == (status, outcome, 1)
    assert (row.cost_nanousd > 0) == (outcome == "failed")


async def test_f007_a_stale_connection_costs_once(start: Start) -> None:
    """The first connection is closed when the second request comes on it."""
    body = orjson.dumps({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 1}})
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for turn in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            if connections == 1 and turn == 1:
                break
            writer.write(answer(200, body, "content-type: application/json"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    gateway = await start(config({"own": url}, "  alone: {tiers: [own/m]}"), change=budget())
    assert [(await gateway.ask("alone")).status for _ in range(2)] == [200, 200]
    rows = await agree(gateway, 2)
    assert [(row.attempts, row.cost_nanousd) for row in rows] == [(1, 10 * IN + OUT), (2, 10 * IN + OUT)]
    server.close()


REFUSED: list[tuple[dict[str, Any], int]] = [
    ({"model": "nobody"}, 404),
    ({"model": "alone", "n": 0}, 400),
    ({"model": "alone", "stream": "yes"}, 400),
    ({"model": 5}, 400),
]


@pytest.mark.parametrize(("fields", "status"), REFUSED, ids=str)
async def test_what_penstock_refuses_costs_nothing(
    fields: dict[str, Any], status: int, start: Start, upstream_url: str
) -> None:
    gateway = await started(start, upstream_url, "plain")
    assert (await send(gateway.port, CHAT, orjson.dumps({"messages": [], **fields}))).status == status
    (row,) = await agree(gateway, 1)
    assert (row.outcome, row.status, row.attempts, row.cost_nanousd) == ("refused", status, 0, 0)


# Clients that leave


@pytest.mark.parametrize("script", ["silent", "head-then-silence"])
@pytest.mark.parametrize("stream", [True, False])
async def test_f054_a_client_that_leaves_before_content_pays_its_prompt(
    script: str, stream: bool, start: Start, upstream: Simulator, upstream_url: str
) -> None:
    gateway = await started(start, upstream_url, script)
    client = await Connection.open(gateway.port)
    client.post(CHAT, orjson.dumps({"model": "alone", "stream": stream, "messages": [{"content": "a" * 400}]}))
    async with asyncio.timeout(2):
        while not upstream.requests:
            await asyncio.sleep(0.005)
    client.reset()
    (row,) = await agree(gateway, 1)
    assert (row.outcome, row.status, row.cost_source) == ("client_cancelled", 499, "estimated")
    assert 100 * IN <= row.cost_nanousd <= 150 * IN


async def test_f055_a_client_that_leaves_pays_what_it_was_sent(start: Start, upstream_url: str) -> None:
    gateway = await started(start, upstream_url, "paced:100:10ms")
    client = await Connection.open(gateway.port)
    client.post(CHAT, orjson.dumps({"model": "alone", "stream": True, "messages": []}))
    seen = b""
    while seen.count(b'"content":"') < 10:
        seen = await client.until(b'"content":"')
        client._buffer += await client.reader.read(1 << 16)
    client.reset()
    (row,) = await agree(gateway, 1)
    assert (row.outcome, row.estimated) == ("client_cancelled", True)
    assert row.output_tokens >= 10


@pytest.mark.parametrize("drains", [False, True])
async def test_an_answer_that_came_whole_is_billed_by_its_report(drains: bool, start: Start, upstream_url: str) -> None:
    """The client is gone when the end comes, and the provider has told all the same: nothing of that is a guess."""
    script = "paced:6:20ms" if drains else "after-done-silence"
    more = '\n  r: {tiers: ["sim/paced:6:20ms"], on_disconnect: drain}'
    gateway = await start(
        config({"sim": upstream_url}, f'  direct: {{tiers: ["sim/{script}"]}}' + more), change=budget()
    )
    asked = {"stream": True, "max_tokens": CAP, "messages": [{"role": "user", "content": "How high is the water?"}]}
    whole = await send(gateway.port, CHAT, orjson.dumps({"model": "direct", **asked}))
    assert whole.end == "whole"
    client = await Connection.open(gateway.port)
    client.post(CHAT, orjson.dumps({"model": "r" if drains else "direct", **asked}))
    await client.until(b'"content":"' if drains else b"data: [DONE]")
    client.reset()
    rows = await agree(gateway, 2)
    assert [row.estimated for row in rows] == [False, False]
    assert rows[0].output_tokens == rows[1].output_tokens
    assert abs(rows[0].cost_nanousd - rows[1].cost_nanousd) <= 2 * IN  # the names differ by a few letters


# Hedges


def in_a_hurry(gateway: Gateway) -> Hedging:
    assert gateway.service._surface is not None
    hedging = Hedging()
    for _ in range(40):
        hedging.pace.note(0.03)
    gateway.service._surface.runtime.hedging["r"] = hedging
    return hedging


async def hedged(start: Start, url: str, first: str, change: Callable[[Any], Any], **more: Any) -> Gateway:
    routes = f'  r: {{tiers: ["sim/{first}", other/plain], hedge: true}}'
    return await start(config({"sim": url, "other": url}, routes), change=change, **more)


async def test_f053_who_loses_a_race_is_paid_for_its_input(start: Start, upstream_url: str) -> None:
    gateway = await hedged(start, upstream_url, "delay:350ms", budget())
    in_a_hurry(gateway)
    answer = await gateway.ask("r", stream=True, max_tokens=CAP)
    assert (answer.status, answer.headers["x-penstock-attempts"]) == (200, "2")
    (row,) = await agree(gateway, 1)
    assert (row.outcome, row.attempts, row.provider, row.cost_source) == ("ok", 2, "other", "estimated")
    lost = row.cost_nanousd - row.input_tokens * IN - row.output_tokens * OUT
    assert 10 * IN < lost < 100 * IN


async def test_a_hedge_that_no_budget_has_room_for_is_not_begun(
    start: Start, upstream: Simulator, upstream_url: str
) -> None:
    """One attempt is held at some 1.1 million nano-USD, and there is no room for two."""
    gateway = await hedged(start, upstream_url, "delay:200ms", budget(1_800_000))
    hedging = in_a_hurry(gateway)
    answer = await gateway.ask("r", stream=True, max_tokens=CAP)
    assert (answer.status, answer.headers["x-penstock-attempts"]) == (200, "1")
    await agree(gateway, 1)
    assert (len(upstream.requests), hedging.budget.in_flight) == (1, 0)


async def test_a_hedge_that_cannot_be_written_down_is_not_begun(
    start: Start, upstream: Simulator, upstream_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is under way goes on: it is in the journal."""
    gateway = await hedged(start, upstream_url, "delay:200ms", budget())
    hedging = in_a_hurry(gateway)
    outbox = stores_of(gateway).outbox
    written = iter((True, False))
    monkeypatch.setattr(outbox, "intend", lambda _: next(written))
    answer = await gateway.ask("r", stream=True, max_tokens=CAP)
    assert (answer.status, answer.headers["x-penstock-attempts"]) == (200, "1")
    await agree(gateway, 1)
    assert (len(upstream.requests), hedging.budget.in_flight) == (1, 0)
    assert gateway.service._surface is not None
    assert gateway.service._surface.runtime.retry_budget.in_flight == 0


async def test_a_client_that_leaves_while_a_hedge_is_cleared_leaves_no_permit_behind(
    start: Start, upstream: Simulator, upstream_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await hedged(start, upstream_url, "silent", budget())
    hedging = in_a_hurry(gateway)
    store = stores_of(gateway).budgets._store
    reserve, asked = store.reserve, asyncio.Event()
    calls = 0

    async def slowly(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            asked.set()
            await asyncio.sleep(5)
        return await reserve(*args)

    await gateway.ask("other/plain", max_tokens=1)  # the books are made
    monkeypatch.setattr(store, "reserve", slowly)
    client = await Connection.open(gateway.port)
    client.post(CHAT, orjson.dumps({"model": "r", "stream": True, "messages": []}))
    await asyncio.wait_for(asked.wait(), 3)
    client.reset()
    await agree(gateway, 2)
    assert hedging.budget.in_flight == 0
    assert gateway.service._surface is not None
    assert gateway.service._surface.runtime.retry_budget.in_flight == 0


async def test_what_penstock_ends_itself_may_have_been_billed(
    start: Start, upstream: Simulator, upstream_url: str
) -> None:
    """The provider has read the prompt, and the process shuts down."""
    gateway = await started(start, upstream_url, "silent")
    asking = asyncio.create_task(gateway.ask("alone"))
    async with asyncio.timeout(2):
        while not upstream.requests:
            await asyncio.sleep(0.005)
    assert gateway.service._surface is not None
    await gateway.service._surface.drain(0.05)
    assert (await asking).error["code"] == "shutting_down"
    (row,) = await agree(gateway, 1)
    assert (row.outcome, row.cost_source) == ("failed", "estimated")
    assert row.cost_nanousd > 10 * IN
