"""`GET /admin/events`: what happens, as server-sent events, from now on.

Each event is one `data:` line of JSON. A comment comes every `HEARTBEAT_S`, so that neither side takes silence for the
other's end. The last event is named `end` and says why: the server shuts down, or the listener was too slow.
"""

from collections.abc import AsyncIterator
from typing import Final

from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.edge.admin.endpoint import Ask, Feed
from proxy.ports import EventListener

HEARTBEAT_S: Final = 15.0
_FULL: Final = "Too many listen to events already, or this process shuts down. Close one, or try again later."


async def followed(ask: Ask) -> Feed:
    listener = None if ask.runtime.events is None else ask.runtime.events.listen()
    if listener is None:
        raise Rejected(Failure(FailureKind.OVERLOADED_HERE, _FULL))
    return Feed(_parts(listener), listener.close)


async def _parts(listener: EventListener) -> AsyncIterator[bytes]:
    yield b": penstock\n\n"  # the head goes out with it
    while (event := await listener.next(HEARTBEAT_S)) is not None:
        yield b"data: %b\n\n" % event if event else b":\n\n"
    why = b"too slow: events were lost" if listener.dropped else b"shutting down"
    yield b'event: end\ndata: {"why":"%b"}\n\n' % why
