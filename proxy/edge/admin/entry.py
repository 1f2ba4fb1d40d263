"""What a request says beside its path: its query and its body. Names that the endpoint does not know are refused."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from proxy.core import media_type
from proxy.core.failure import Failure, FailureKind, Rejected
from proxy.core.nearest import did_you_mean
from proxy.edge.admin.endpoint import Endpoint
from proxy.ports import BodyRefused, Downstream

BODY_BYTES_MAX: Final = 1024 * 1024
NAMES_TOLD_MAX: Final = 8
NAME_CHARS_TOLD_MAX: Final = 64


def query_of(text: str, endpoint: Endpoint) -> dict[str, str]:
    """The query's values by their names. Raises `Rejected`."""
    pairs = parse_qsl(text, keep_blank_values=True)
    refuse_unknown("query parameter", (name for name, _ in pairs), endpoint.query)
    query = dict(pairs)
    if len(query) != len(pairs):
        raise bad("A query parameter stands twice; send each once.")
    return query


async def body_of(downstream: Downstream, endpoint: Endpoint) -> Mapping[str, Any]:
    """The body, an object; a request without one has an empty one. Raises `Rejected`, `ClientGone`."""
    try:
        raw = await downstream.body(BODY_BYTES_MAX)
    except BodyRefused as refusal:
        raise Rejected(Failure(refusal.kind, str(refusal))) from None
    if not raw:
        return {}
    not_json = media_type.refusal(downstream.headers.get("content-type"))
    if not_json is not None:
        raise bad(not_json)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise bad("The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise bad("The request body must be a JSON object.")
    refuse_unknown("member", body, endpoint.members)
    return body


def refuse_unknown(what: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises `Rejected`, naming what is not known. For an object inside the body too: ``what`` says what has the names."""
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if not unknown:
        return
    told = ", ".join(f"'{name[:NAME_CHARS_TOLD_MAX]}'" for name in unknown[:NAMES_TOLD_MAX])
    more = f" and {len(unknown) - NAMES_TOLD_MAX} more" if len(unknown) > NAMES_TOLD_MAX else ""
    hint = did_you_mean(unknown[0], known) or (f" Known: {', '.join(sorted(known))}." if known else " It takes none.")
    raise bad(f"Unknown {what} {told}{more}.{hint}", unknown[0][:NAME_CHARS_TOLD_MAX])


def bad(message: str, param: str | None = None) -> Rejected:
    return Rejected(Failure(FailureKind.BAD_REQUEST, message, param=param))
