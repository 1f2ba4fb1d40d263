"""What a stream cost, told in it: a last comment before `[DONE]`, where the client asked for it.

It is about one exchange, so it never stands in a recording: whoever reads one is told of its own.
"""

from typing import Final

import orjson

from proxy.core.budget import usd
from proxy.core.sse import EventScanner, data_of
from proxy.phases.bill import bill
from proxy.phases.booking import cost_of, cost_source_of
from proxy.phases.exchange import Exchange

HEADER: Final = "x-penstock-stream-cost"
_DONE: Final = b"[DONE]"


def is_asked(x: Exchange) -> bool:
    return x.headers.get(HEADER, "").strip().lower() == "comment"


def with_cost(x: Exchange, last: bytes) -> bytes:
    """The last bytes of a stream that ended well, with the comment before its `[DONE]`, or at its end where it has none."""
    if x.bill is None:
        x.bill = bill(x, whole=True)
    made = x.bill
    told = {
        "request_id": x.id,
        "cost_usd": usd(cost_of(x)),
        "cost_source": cost_source_of(x),
        "input_tokens": made.used.input_tokens,
        "output_tokens": made.used.output_tokens,
        "estimated": made.used.estimated,
    }
    comment = b": penstock " + orjson.dumps(told) + b"\n\n"
    at = _done_at(last)
    return last[:at] + comment + last[at:]


def _done_at(last: bytes) -> int:
    """Where the event `[DONE]` begins; the end where there is none. The words may stand in an answer's text, too."""
    end = len(last)
    for event in reversed(list(EventScanner().feed(last))):
        end -= len(event.rest)
        data = data_of(event.rest)
        if data is not None:
            return end if data.strip() == _DONE else len(last)
    return len(last)
