"""What a stream cost, told in it: a last comment before `[DONE]`, where the client asked for it."""

from typing import Final

import orjson

from proxy.core.budget import usd
from proxy.phases.bill import bill
from proxy.phases.exchange import Exchange

HEADER: Final = "x-penstock-stream-cost"
_DONE: Final = b"data: [DONE]"


def is_asked(x: Exchange) -> bool:
    return x.headers.get(HEADER, "").strip().lower() == "comment"


def with_cost(x: Exchange, last: bytes) -> bytes:
    """The last bytes of a stream that ended well, with the comment before its `[DONE]`, or at its end where it has none."""
    x.bill = made = bill(x, whole=True)
    told = {
        "request_id": x.id,
        "cost_usd": usd(made.charge.cost_nanousd),
        "cost_source": made.charge.source.value,
        "input_tokens": made.used.input_tokens,
        "output_tokens": made.used.output_tokens,
        "estimated": made.used.estimated,
    }
    comment = b": penstock " + orjson.dumps(told) + b"\n\n"
    at = last.rfind(_DONE)
    return last + comment if at < 0 else last[:at] + comment + last[at:]
