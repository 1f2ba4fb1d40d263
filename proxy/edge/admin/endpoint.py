"""What an admin endpoint is, and which one a request means."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from proxy.core.key_rights import OPERATOR, Actor
from proxy.phases.runtime import Runtime
from proxy.ports import AuditLog
from proxy.terms import AccountId, Role

NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ask:
    """One request that was let in, read and checked.

    Shapes: ``runtime`` is what an exchange that begins now runs on. ``steps`` are the values of the path's `{names}`;
    ``query`` and ``body`` hold only names that the endpoint knows, each at most once; the values are the handler's to check.
    ``actor`` is who asks, as the audit log has it: `admin key`, or `key:<id>`. ``account``: the one whose rows alone the
    caller may see and change, None for all; what is another's is to be answered as what there is not. ``key``: the virtual
    key that asks, or the operator, who is bound by nothing. ``accept``: the header, empty where there is none.
    """

    runtime: Runtime
    role: Role
    steps: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]
    actor: str
    account: AccountId | None
    audit: AuditLog
    key: Actor = OPERATOR
    accept: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer that is no JSON."""

    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Feed:
    """An answer that goes on until ``parts`` end or the client leaves: server-sent events. ``close``: in any case, once."""

    parts: AsyncIterator[bytes]
    close: Callable[[], None]


# Gives what JSON can hold, or one of the above, which is answered with 200; raises `Rejected` to refuse.
Handler = Callable[[Ask], Awaitable[Mapping[str, Any] | Page | Feed]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row of the table.

    Shapes: a step `{name}` of ``path`` stands for any one step. ``role`` is the lowest that may. ``members`` and ``query``
    are the names that a body and a query may hold; what they do not name is refused. ``recorded``: the members of the body
    and of the answer whose values the audit log keeps; of all others it keeps the names. ``per_account``: a key that is
    bound to an account may ask, because the handler keeps to `Ask.account`, or tells and changes nothing of any account.
    """

    method: str
    path: str
    role: Role
    handler: Handler
    members: frozenset[str] = NO_NAMES
    query: frozenset[str] = NO_NAMES
    recorded: frozenset[str] = NO_NAMES
    per_account: bool = False

    def match(self, path: str) -> dict[str, str] | None:
        """The values of the `{names}`, decoded, where this endpoint's path is `path`; else None."""
        own, given = self.path.split("/"), path.split("/")
        if len(own) != len(given):
            return None
        steps: dict[str, str] = {}
        for expected, step in zip(own, given, strict=True):
            if expected.startswith("{") and step:
                steps[expected[1:-1]] = unquote(step)
            elif expected != step:
                return None
        return steps


def matching(endpoints: Sequence[Endpoint], path: str) -> Iterator[tuple[Endpoint, dict[str, str]]]:
    """Every endpoint at a path, with the values of its `{names}`, in the order of the table."""
    for endpoint in endpoints:
        steps = endpoint.match(path)
        if steps is not None:
            yield endpoint, steps


def methods(found: Sequence[Endpoint]) -> list[str]:
    """The methods of a path, HEAD wherever GET."""
    named = {endpoint.method for endpoint in found}
    return sorted(named | {"HEAD"} if "GET" in named else named)
