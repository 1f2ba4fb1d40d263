"""What came with a request, told in its answer: no provider does that, tests want it."""

from typing import Any

from proxy.simulator.ask import Ask


def received(ask: Ask) -> dict[str, Any]:
    """The files of a form, their bytes counted and hashed; nothing where none came."""
    if not ask.files:
        return {}
    return {
        "received": [
            {
                "field": file.name,
                "filename": file.filename,
                "content_type": file.content_type,
                "bytes": file.size,
                "sha256": file.sha256,
            }
            for file in ask.files
        ]
    }
