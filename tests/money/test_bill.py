"""What an answer costs, from the bytes of its provider to the ledger's row: each cost is worked out here by hand.

Prices are USD a million tokens, so a token at 2.50 costs 2,500 nano-USD. Costs are in nano-USD.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from tests.conftest import Start
from tests.edge.recorder import answer
from tests.gateway import CHAT, Gateway, send
from tests.money.conftest import Record
from tests.money.stage import agree, budget, told_cost

RESPONSES, MESSAGES, COMPLETIONS, EMBEDDINGS = "/v1/responses", "/v1/messages", "/v1/completions", "/v1/embeddings"
GPT = "{input: 2.5, output: 10, cached: 1.25}"
CLAUDE = "{input: 3, output: 15, cached: 0.3, cache_write: 3.75, cache_write_1h: 6}"
AUDIO = "{input: 2.5, output: 10, audio_input: 40, audio_output: 80}"
GEMINI = (
    "{input: 1.25, output: 10, cached: 0.31, above: [{input_tokens: 200000, input: 2.5, output: 15, cached: 0.625}]}"
)
GROK = "{input: 3, output: 15, cached: 0.75}"
SONAR = "{input: 1, output: 1, request: 0.005}"


@dataclass(frozen=True)
class Case:
    like: str
    price: str | None
    usage: dict[str, Any]
    cost: int
    source: str = "configured"
    path: str = CHAT
    headers: tuple[str, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)  # of the answer's document
    tokens: tuple[int, int] | None = None


CASES = {
    # 1,000 x 2,500 + 100 x 10,000
    "openai": Case("openai", GPT, {"prompt_tokens": 1000, "completion_tokens": 100}, 3_500_000),
    # 200 x 2,500 + 800 x 1,250 + 100 x 10,000
    "openai cached": Case(
        "openai",
        GPT,
        {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 800}},
        2_500_000,
    ),
    # Reasoning is among the output, and costs what output does: 10 x 2,500 + 500 x 10,000
    "openai reasoning": Case(
        "openai",
        GPT,
        {
            "prompt_tokens": 10,
            "completion_tokens": 500,
            "completion_tokens_details": {"reasoning_tokens": 450},
        },
        5_025_000,
    ),
    # 60 x 2,500 + 40 x 40,000 + 30 x 10,000 + 70 x 80,000
    "openai audio": Case(
        "openai",
        AUDIO,
        {
            "prompt_tokens": 100,
            "completion_tokens": 100,
            "prompt_tokens_details": {"audio_tokens": 40},
            "completion_tokens_details": {"audio_tokens": 70},
        },
        7_650_000,
    ),
    # 500 x 2,500 + 500 x 1,250 + 20 x 10,000
    "openai responses": Case(
        "openai",
        GPT,
        {"input_tokens": 1000, "output_tokens": 20, "input_tokens_details": {"cached_tokens": 500}},
        2_075_000,
        path=RESPONSES,
    ),
    # 1,000 x 130
    "openai embeddings": Case(
        "openai",
        "{input: 0.13, output: 0}",
        {"prompt_tokens": 1000, "total_tokens": 1000},
        130_000,
        path=EMBEDDINGS,
    ),
    # A nano-USD is never split in the provider's disfavour: 1 x 0.1 is 0.1, booked as 1
    "rounded up once": Case(
        "openai", '{input: "0.0001", output: 0}', {"prompt_tokens": 1, "total_tokens": 1}, 1, path=EMBEDDINGS
    ),
    # 100 x 3,000 + 50 x 15,000
    "anthropic": Case("anthropic", CLAUDE, {"input_tokens": 100, "output_tokens": 50}, 1_050_000, path=MESSAGES),
    # Read beside the input: 100 x 3,000 + 10,000 x 300 + 50 x 15,000
    "anthropic cached": Case(
        "anthropic",
        CLAUDE,
        {"input_tokens": 100, "cache_read_input_tokens": 10_000, "cache_creation_input_tokens": 0, "output_tokens": 50},
        4_050_000,
        path=MESSAGES,
        tokens=(10_100, 50),
    ),
    # 100 x 3,000 + 2,000 x 3,750 + 50 x 15,000
    "anthropic written for 5m": Case(
        "anthropic",
        CLAUDE,
        {
            "input_tokens": 100,
            "cache_creation_input_tokens": 2000,
            "cache_creation": {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 50,
        },
        8_550_000,
        path=MESSAGES,
    ),
    # 100 x 3,000 + 500 x 3,750 + 1,500 x 6,000 + 1,000 x 300 + 50 x 15,000
    "anthropic written for 1h": Case(
        "anthropic",
        CLAUDE,
        {
            "input_tokens": 100,
            "cache_read_input_tokens": 1000,
            "cache_creation_input_tokens": 2000,
            "cache_creation": {"ephemeral_5m_input_tokens": 500, "ephemeral_1h_input_tokens": 1500},
            "output_tokens": 50,
        },
        12_225_000,
        path=MESSAGES,
        tokens=(3100, 50),
    ),
    # xAI counts reasoning beside the completion: (40 + 260) x 15,000 + 100 x 3,000
    "xai reasoning": Case(
        "xai",
        GROK,
        {
            "prompt_tokens": 100,
            "completion_tokens": 40,
            "total_tokens": 400,
            "completion_tokens_details": {"reasoning_tokens": 260},
        },
        4_800_000,
        tokens=(100, 300),
    ),
    # Gemini tells its thoughts by the total alone: (20 + 180) x 10,000 + 50 x 1,250
    "gemini surplus": Case(
        "gemini",
        GEMINI,
        {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 250},
        2_062_500,
        tokens=(50, 200),
    ),
    # Of 200,000 the small price still holds: 200,000 x 1,250 + 10 x 10,000
    "gemini at the step": Case("gemini", GEMINI, {"prompt_tokens": 200_000, "completion_tokens": 10}, 250_100_000),
    # Above it the large one holds for all: 200,001 x 2,500 + 10 x 15,000
    "gemini above the step": Case("gemini", GEMINI, {"prompt_tokens": 200_001, "completion_tokens": 10}, 500_152_500),
    # 100,000 x 625 + 150,000 x 2,500 + 10 x 15,000
    "gemini above, cached": Case(
        "gemini",
        GEMINI,
        {"prompt_tokens": 250_000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 100_000}},
        437_650_000,
    ),
    # DeepSeek's own name: 100 x 270 + 900 x 70 + 10 x 1,100
    "deepseek": Case(
        "deepseek",
        "{input: 0.27, output: 1.1, cached: 0.07}",
        {
            "prompt_tokens": 1000,
            "prompt_cache_hit_tokens": 900,
            "prompt_cache_miss_tokens": 100,
            "completion_tokens": 10,
        },
        101_000,
    ),
    # A fee for the request beside the tokens: 5,000,000 + 10 x 1,000 + 20 x 1,000
    "perplexity by the list": Case(
        "perplexity",
        SONAR,
        {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30},
        5_030_000,
        path=RESPONSES,
    ),
    # What the provider reports is believed before any price.
    "perplexity reports": Case(
        "perplexity",
        SONAR,
        {
            "input_tokens": 10,
            "output_tokens": 20,
            "cost": {"input_cost": 0.00001, "tool_calls_cost": 0.006, "total_cost": 0.00603},
        },
        6_030_000,
        "reported",
        RESPONSES,
    ),
    "openrouter reports": Case(
        "openrouter", GPT, {"prompt_tokens": 10, "completion_tokens": 2, "cost": 0.00123}, 1_230_000, "reported"
    ),
    # The fee, and the bill of the provider behind: 0.0001 + 0.002
    "openrouter byok": Case(
        "openrouter",
        GPT,
        {
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "cost": 0.0001,
            "is_byok": True,
            "cost_details": {"upstream_inference_cost": 0.002},
        },
        2_100_000,
        "reported",
    ),
    "openrouter for nothing": Case(
        "openrouter", None, {"prompt_tokens": 10, "completion_tokens": 2, "cost": 0}, 0, "reported"
    ),
    # 10^10 ticks to the USD: 12,345,675 / 10, rounded up
    "xai ticks": Case(
        "xai",
        GROK,
        {"prompt_tokens": 10, "completion_tokens": 2, "cost_in_usd_ticks": 12_345_675},
        1_234_568,
        "reported",
    ),
    "litellm header": Case(
        "vllm",
        GPT,
        {"prompt_tokens": 10, "completion_tokens": 2},
        43_500,
        "reported",
        headers=("x-litellm-response-cost: 4.35e-05",),
    ),
    # Both tell: the document, which is newer than the head.
    "header and document": Case(
        "openrouter",
        GPT,
        {"prompt_tokens": 10, "completion_tokens": 2, "cost": 0.5},
        500_000_000,
        "reported",
        headers=("x-litellm-response-cost: 0.1",),
    ),
    "a header that is no number": Case(
        "vllm",
        GPT,
        {"prompt_tokens": 1000, "completion_tokens": 100},
        3_500_000,
        headers=("x-litellm-response-cost: None",),
    ),
    # Two images at 0.04, whatever the tokens
    "images": Case(
        "openai",
        "{input: 0, output: 0, image: 0.04}",
        {},
        80_000_000,
        path="/v1/images/generations",
        more={"data": [{"b64_json": "AA=="}, {"b64_json": "AA=="}]},
    ),
    # Text 50 x 5,000, pictures 100 x 10,000, made 4,160 x 40,000
    "images by tokens": Case(
        "openai",
        "{input: 5, output: 40, image_input: 10, image_output: 40}",
        {
            "input_tokens": 150,
            "output_tokens": 4160,
            "total_tokens": 4310,
            "input_tokens_details": {"text_tokens": 50, "image_tokens": 100},
        },
        167_650_000,
        path="/v1/images/generations",
        more={"data": [{"b64_json": "AA=="}]},
    ),
    "rerank": Case(
        "vllm",
        "{input: 0, output: 0, search: 0.002}",
        {},
        6_000_000,
        path="/v1/rerank",
        more={"results": [], "meta": {"billed_units": {"search_units": 3}}},
    ),
    # A server of one's own costs nothing, and that is known, not missing.
    "local": Case("vllm", None, {"prompt_tokens": 1000, "completion_tokens": 100}, 0, "local"),
    # Nobody knows: the route's ceiling, 0.01 USD
    "unknown": Case("openrouter", None, {"prompt_tokens": 10, "completion_tokens": 2}, 10_000_000, "unknown"),
}
BODY = {
    "messages": [{"role": "user", "content": "?"}],
    "input": "?",
    "prompt": "?",
    "query": "?",
    "documents": ["a"],
    "max_tokens": 50,
}


async def gateway_to(start: Start, url: str, case: Case) -> Gateway:
    price = "" if case.price is None else f", price: {{m: {case.price}}}"
    return await start(
        f'providers: {{p: {{like: {case.like}, base_url: "{url}", api_key: env:KEY{price}}}}}',
        environ={"KEY": "sk-test"},
        change=budget(),
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_is_booked_is_what_was_used(case: Case, start: Start, record: Record) -> None:
    document = {"id": "1", "choices": [], **({"usage": case.usage} if case.usage else {}), **case.more}
    told = answer(200, orjson.dumps(document), "content-type: application/json", *case.headers)
    url = await record(lambda _: told)
    gateway = await gateway_to(start, url, case)
    got = await send(gateway.port, case.path, orjson.dumps({"model": "p/m", **BODY}))
    assert got.status == 200, got.body
    (row,) = await agree(gateway, 1)
    whole, part = divmod(case.cost, 10**9)
    assert (row.cost_nanousd, row.cost_source, row.estimated) == (case.cost, case.source, False)
    assert float(got.headers["x-penstock-cost-usd"]) == float(f"{whole}.{part:09d}")
    if case.tokens is not None:
        assert (row.input_tokens, row.output_tokens) == case.tokens


STREAMED = {name: case for name, case in CASES.items() if case.path == CHAT}


@pytest.mark.parametrize("case", STREAMED.values(), ids=STREAMED)
async def test_a_stream_costs_what_the_whole_answer_costs(case: Case, start: Start, record: Record) -> None:
    events = [
        {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": case.usage},
    ]
    body = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    told = answer(200, body, "content-type: text/event-stream", *case.headers)
    url = await record(lambda _: told)
    gateway = await gateway_to(start, url, case)
    asked = orjson.dumps({"model": "p/m", "stream": True, **BODY})
    got = await send(gateway.port, CHAT, asked, {"x-penstock-stream-cost": "comment"})
    assert (got.status, got.end) == (200, "whole")
    (row,) = await agree(gateway, 1)
    assert (row.cost_nanousd, row.cost_source, row.estimated) == (case.cost, case.source, False)
    told_of = told_cost(got.body)
    assert float(told_of["cost_usd"]) * 1e9 == pytest.approx(case.cost)
    assert (told_of["cost_source"], told_of["estimated"]) == (case.source, False)


async def test_a_zero_in_the_head_of_a_stream_is_no_report(start: Start, record: Record) -> None:
    """LiteLLM's head is older than its stream: the cost in it is that of nothing yet."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"usage":%b}\n\n'
    usage = b'{"prompt_tokens":1000,"completion_tokens":100}'
    told = answer(
        200,
        event % usage + b"data: [DONE]\n\n",
        "content-type: text/event-stream",
        "x-litellm-response-cost: 0.0",
    )
    url = await record(lambda _: told)
    gateway = await gateway_to(start, url, Case("vllm", GPT, {}, 0))
    await gateway.ask("p/m", stream=True)
    (row,) = await agree(gateway, 1)
    assert (row.cost_nanousd, row.cost_source) == (3_500_000, "configured")


HOSTILE: list[Any] = [
    {"prompt_tokens": -5, "completion_tokens": 10**30},
    {"prompt_tokens": 10**12, "completion_tokens": 10**12},
    {"prompt_tokens": "many", "completion_tokens": None, "total_tokens": [1]},
    {"prompt_tokens": 1, "completion_tokens": 1, "cost": "1e400"},
    {"prompt_tokens": 1, "completion_tokens": 1, "cost": -1},
    {"prompt_tokens": 1, "completion_tokens": 1, "cost": {"total_cost": {}}},
    {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 10**9, "audio_tokens": 10**9}},
    {"input_tokens": 1, "cache_creation_input_tokens": 10**12, "cache_creation": []},
    {f"k{number}": 1 for number in range(5000)},
    [1, 2, 3],
]


@pytest.mark.parametrize("usage", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("stream", [False, True])
async def test_whatever_a_provider_counts_is_booked(usage: Any, stream: bool, start: Start, record: Record) -> None:
    """No figure of a provider's keeps an exchange out of the books, or takes anything off them."""
    raw = (
        orjson.dumps(usage)
        if 10**30 not in (usage.values() if isinstance(usage, dict) else ())
        else (b'{"prompt_tokens":-5,"completion_tokens":1000000000000000000000000000000}')
    )
    if stream:
        event = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"usage":%b}\n\n' % raw
        told = answer(200, event + b"data: [DONE]\n\n", "content-type: text/event-stream")
    else:
        told = answer(200, b'{"choices":[],"usage":%b}' % raw, "content-type: application/json")
    url = await record(lambda _: told)
    gateway = await gateway_to(start, url, Case("openai", GPT, {}, 0))
    assert (await gateway.ask("p/m", stream=stream)).status == 200
    (row,) = await agree(gateway, 1)
    assert row.cost_nanousd > 0
