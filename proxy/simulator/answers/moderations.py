"""POST /v1/moderations. Source: platform.openai.com/docs/api-reference/moderations, read 2026-11-21.

A text that names a category is flagged for it; so a test can choose.
"""

from typing import Any, Final

import orjson

from proxy.simulator.ask import Ask

CATEGORIES: Final = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_IMAGES_TOO: Final = frozenset(
    {"self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "violence", "violence/graphic"}
)
_INPUTS_MAX: Final = 2048


def whole(ask: Ask) -> bytes:
    results = [_result(text, has_image) for text, has_image in _inputs(ask.fields.get("input"))]
    return orjson.dumps({"id": f"modr-{ask.digest.decode()}", "model": ask.model, "results": results})


def _inputs(asked: Any) -> list[tuple[str, bool]]:
    """Each input's text, and whether an image came with it: a text, texts, or the parts of one input."""
    if not isinstance(asked, list):
        return [(str(asked), False)]
    parts = [one for one in asked if isinstance(one, dict)]
    if parts:
        text = " ".join(str(part.get("text", "")) for part in parts)
        return [(text, any(part.get("type") == "image_url" for part in parts))]
    return [(str(one), False) for one in asked[:_INPUTS_MAX]]


def _result(text: str, has_image: bool) -> dict[str, Any]:
    said = text.lower()
    flagged = {name: name in said for name in CATEGORIES}
    return {
        "flagged": any(flagged.values()),
        "categories": flagged,
        "category_scores": {name: 0.9876 if hit else 0.000123 for name, hit in flagged.items()},
        "category_applied_input_types": {
            name: ["text", "image"] if has_image and name in _IMAGES_TOO else ["text"] for name in CATEGORIES
        },
    }
