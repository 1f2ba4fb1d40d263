"""Answers to keep, for tests."""

from dataclasses import replace
from typing import Any, Final

from proxy.core.cache_selector import Labels
from proxy.core.cached_answer import CachedAnswer, Form
from proxy.terms import AccountId, Api, Generation, NanoUsd, ProviderId, RouteName

LABELS: Final = Labels(RouteName("simple"), AccountId("acme"), ProviderId("openai"), "gpt-4o", ("team=a", "v2"))
ANSWER: Final = CachedAnswer(
    api=Api.CHAT,
    form=Form.JSON,
    status=200,
    content_type="application/json",
    headers=(("x-penstock-model", "gpt-4o"), ("openai-version", "2020-10-01")),
    body=b'{"choices":[]}',
    usage_asked=True,
    usage=b'{"prompt_tokens":3}',
    cost_nanousd=NanoUsd(1_500),
    labels=LABELS,
    stored_at_s=1_760_000_000.25,
    ttl_s=3600.0,
    generation=Generation(7),
)
STREAM: Final = b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'


def labels(**changes: Any) -> Labels:
    return replace(LABELS, **changes)


def answer(**changes: Any) -> CachedAnswer:
    return replace(ANSWER, **changes)


def stream(events: int, **changes: Any) -> CachedAnswer:
    return answer(form=Form.STREAM, content_type="text/event-stream", body=STREAM * events, **changes)
