"""POST /v1/rerank. Source: api.jina.ai/redoc (rerank) and docs.cohere.com/reference/rerank, read 2026-11-21: `results` with
`index` and `relevance_score` is what they share; Jina's `usage` and Cohere's `meta` stand beside them.

The score is how many of the query's words stand in the document.
"""

from typing import Any, Final

import orjson

from proxy.simulator.ask import Ask, UsagePlace
from proxy.simulator.material import is_true, number

_DOCUMENTS_MAX: Final = 2048


def whole(ask: Ask) -> bytes:
    fields = ask.fields
    documents = fields.get("documents")
    texts = [_text(one) for one in documents[:_DOCUMENTS_MAX]] if isinstance(documents, list) else []
    wanted = set(str(fields.get("query", "")).lower().split())
    ranked = sorted(enumerate(texts), key=lambda one: -_score(wanted, one[1]))[: number(fields.get("top_n")) or None]
    shown = is_true(fields.get("return_documents"))
    results = [
        {"index": index, "relevance_score": _score(wanted, text), **({"document": {"text": text}} if shown else {})}
        for index, text in ranked
    ]
    answer: dict[str, Any] = {
        "id": f"rerank-{ask.digest.decode()}",
        "object": "list",
        "model": ask.model,
        "results": results,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    }
    if ask.usage_place is not UsagePlace.NOWHERE:
        tokens = ask.usage.input_tokens
        answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return orjson.dumps(answer)


def _text(document: Any) -> str:
    if isinstance(document, dict):
        document = document.get("text", "")
    return str(document)


def _score(wanted: set[str], text: str) -> float:
    shared = wanted & set(text.lower().split())
    return round((len(shared) + 0.01) / (len(wanted) + 0.02), 6)
