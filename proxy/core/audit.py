"""The audit log's vocabulary: an act, the entry that it becomes, and the chain that shows what was changed afterwards.

An entry's hash is over everything in it, its number and the hash of the entry before it; the first is chained to the
installation, so that the log of one is not passed off as another's. The store keeps the *head*, number and hash of the
last entry, apart from the entries, so that the last one cannot go unnoticed either. Whoever can write to all of a store can
write a whole new chain: against that a head that was noted elsewhere helps, and nothing in the store.

An act that is carried out has two entries: `begun` before it, and `done`, `refused` or `failed` after it, which names the
first. One that was not let through has the one, `refused`; what merely happened is `noted`. A `begun` without a second
entry: nobody knows how it ended. `tests/conformance/test_audit.py` holds the stores to this.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, NamedTuple

import orjson

from proxy.core import redact
from proxy.core.text import storable
from proxy.terms import AccountId

Outcome = Literal["begun", "done", "refused", "failed", "noted"]

ADMIN_KEY: Final = "admin key"  # the actor who holds it; who holds a virtual key is `key:<id>`
PENSTOCK: Final = "penstock"  # the actor of what the process does by itself
COMMAND: Final = "command"  # the actor who runs a command beside the server is `command:<user of the machine>`
NOBODY: Final = "nobody"  # the actor whose key is wrong

TEXT_CHARS_MAX: Final = 256
CHANGES_CHARS_MAX: Final = 2048
NUMBER_MAX: Final = 2**53 - 1
_FORM: Final = "penstock audit 1"
_HASH: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Act:
    """What somebody did, or wanted to do. Make it with `act`, which bounds and redacts.

    Shapes: ``changes`` is a JSON object without secrets. ``account``: whose key it was, None for the proxy's own.
    ``begun``: the number of the entry that said that this would be done. Units: Unix microseconds.
    """

    at_us: int
    actor: str
    role: str
    act: str
    outcome: Outcome
    subject: str = ""
    changes: str = "{}"
    request_id: str | None = None
    peer: str | None = None
    account: AccountId | None = None
    begun: int | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """``previous`` and ``hash``: SHA-256, in hexadecimal."""

    number: int
    act: Act
    previous: str
    hash: str


class AuditHead(NamedTuple):
    """The end of a chain; ``number`` 0: nothing was written, and ``hash`` is the anchor."""

    installation: str
    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


class Noted(NamedTuple):
    """A head that somebody wrote down."""

    number: int
    hash: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries: all that is given must hold. Units: Unix microseconds; ``since_us`` included, ``until_us`` not."""

    actor: str | None = None
    act: str | None = None
    subject: str | None = None
    account: str | None = None
    since_us: int | None = None
    until_us: int | None = None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, newest first. ``after``: the number behind which the next page begins; None on the last."""

    entries: tuple[AuditEntry, ...]
    after: int | None


class Flaw(NamedTuple):
    """What is wrong with a log, and at which entry."""

    number: int
    what: str


def act(
    at_us: int,
    actor: str,
    what: str,
    outcome: Outcome,
    *,
    role: str = "",
    subject: str = "",
    changes: Mapping[str, Any] | None = None,
    request_id: str | None = None,
    peer: str | None = None,
    account: AccountId | None = None,
    begun: int | None = None,
) -> Act:
    """An act that every store takes: texts bounded and without what looks like a key."""
    return Act(
        at_us=min(max(at_us, 0), NUMBER_MAX),
        actor=_text(actor),
        role=_text(role),
        act=_text(what),
        outcome=outcome,
        subject=_text(subject),
        changes=_changes(changes or {}),
        request_id=None if request_id is None else _text(request_id),
        peer=None if peer is None else _text(peer),
        account=None if account is None else AccountId(_text(account)),
        begun=begun,
    )


def told(members: Mapping[str, Any], recorded: frozenset[str]) -> dict[str, Any]:
    """What the log keeps of a body or an answer: the values of ``recorded``, and of all others how much it is.

    A member that nobody has declared harmless may be a credential or a prompt.
    """
    return {name: value if name in recorded else _size(value) for name, value in members.items()}


def _size(value: object) -> str:
    match value:
        case dict() | list():
            return f"({len(value)} in it)"
        case str():
            return f"({len(value)} characters)"
        case _:
            return "(not kept)"


def _text(value: str) -> str:
    return storable(redact.text(value[: 4 * TEXT_CHARS_MAX]))[:TEXT_CHARS_MAX]


def _changes(members: Mapping[str, Any]) -> str:
    clean = _clean(dict(members), 0)
    written = orjson.dumps(clean, default=repr, option=orjson.OPT_SORT_KEYS).decode()
    if len(written) <= CHANGES_CHARS_MAX:
        return written
    names = [name[:32] for name in sorted(clean)][:16]
    return orjson.dumps({"too_long": len(written), "names": names}).decode()


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _text(value)
    if depth > 4:
        return "(deeper)"
    if isinstance(value, dict):
        return {_text(str(name)): _clean(member, depth + 1) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(member, depth + 1) for member in value]
    return value


# The chain.


def anchor(installation: str) -> str:
    """What the first entry of an installation is chained to."""
    return hashlib.sha256(f"{_FORM}\n{installation}".encode()).hexdigest()


_NAMES: Final = tuple(one.name for one in fields(Act))


def chained(head: AuditHead, done: Act) -> AuditEntry:
    """The entry that comes next."""
    return AuditEntry(head.number + 1, done, head.hash, digest(head.number + 1, done, head.hash))


def digest(number: int, done: Act, previous: str) -> str:
    """Over a JSON list, the same bytes wherever it is made: no floats, no objects, texts as they are kept."""
    values = [getattr(done, name) for name in _NAMES]
    # repr: what somebody has put into a store by hand has a hash too, another one.
    return hashlib.sha256(orjson.dumps([_FORM, number, previous, *values], default=repr)).hexdigest()


class Verifier:
    """Reads a chain from its first entry to a head that was read before, in batches; and says what is wrong.

    Each flaw is told once: after it the chain is followed from what the entry itself says.
    """

    __slots__ = ("_flaws_max", "_head", "_noted", "_number", "_previous", "flaws")

    def __init__(self, head: AuditHead, noted: Noted | None = None, flaws_max: int = 100) -> None:
        self._head = head
        self._noted = noted
        self._number = 0
        self._previous = anchor(head.installation)
        self._flaws_max = flaws_max
        self.flaws: list[Flaw] = []

    @property
    def number(self) -> int:
        """The last entry that was read."""
        return self._number

    def feed(self, entries: Sequence[AuditEntry]) -> None:
        """The next entries by number. Those behind the head came later, and are left out."""
        for entry in entries:
            if entry.number > self._head.number:
                return
            self._read(entry)

    def end(self) -> tuple[Flaw, ...]:
        """There are no more entries."""
        head = self._head
        if self._number < head.number:
            self._tell_gap(self._number + 1, head.number, "missing from the end")
        elif self._previous != head.hash:
            self._tell(head.number, "its hash is not the one that the store's head has")
        if self._noted is not None and self._noted.number > head.number:
            self._tell(self._noted.number, f"was noted, and the log ends at {head.number}")
        if self._noted is not None and self._noted.number == 0 and self._noted.hash != anchor(head.installation):
            self._tell(0, "the log is of another installation than the one that was noted")
        return tuple(self.flaws)

    def _read(self, entry: AuditEntry) -> None:
        if entry.number > self._number + 1:
            self._tell_gap(self._number + 1, entry.number - 1, "missing")
        elif entry.previous != self._previous:
            self._tell(entry.number, "not chained to the entry before it")
        if digest(entry.number, entry.act, entry.previous) != entry.hash:
            self._tell(entry.number, "changed: its hash does not fit what it says")
        if self._noted is not None and entry.number == self._noted.number and entry.hash != self._noted.hash:
            self._tell(entry.number, "not the one that was noted")
        self._number, self._previous = entry.number, entry.hash

    def _tell_gap(self, first: int, last: int, what: str) -> None:
        self._tell(first, what if first == last else f"{what}, to {last}")

    def _tell(self, number: int, what: str) -> None:
        if len(self.flaws) < self._flaws_max:
            self.flaws.append(Flaw(number, what))


def noted_from(text: str) -> Noted | None:
    """A head as it is printed, `<number>:<hash>`; None where it is none."""
    number, _, found = text.strip().partition(":")
    if not (number.isascii() and number.isdecimal() and len(number) <= 16) or _HASH.fullmatch(found) is None:
        return None
    return Noted(int(number), found)


# Columns and documents.

COLUMNS: Final = ("number", *_NAMES, "previous", "hash")


def columns_of(entry: AuditEntry) -> tuple[Any, ...]:
    return (entry.number, *(getattr(entry.act, name) for name in _NAMES), entry.previous, entry.hash)


def entry_from(values: Sequence[Any]) -> AuditEntry:
    """As it stands in a store, whatever somebody made of it."""
    number, *said, previous, found = values
    return AuditEntry(number, Act(*said), previous, found)


def document(entry: AuditEntry) -> dict[str, Any]:
    """An entry for people and scripts."""
    said = dict(zip(COLUMNS, columns_of(entry), strict=True))
    try:
        changes = orjson.loads(entry.act.changes)
    except (orjson.JSONDecodeError, TypeError):
        changes = entry.act.changes  # not as we wrote it
    return {**said, "changes": changes}
