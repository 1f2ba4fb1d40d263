"""A record is read whole or not at all, and a damaged one costs itself alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import journal_record
from proxy.core.journal_record import HEAD, Damaged
from proxy.core.ledger import Intent, LedgerRow
from tests.rows import row
from tests.server.crash import intent

ENTRIES: list[Intent | LedgerRow] = [intent("a"), row(1), intent("b"), row(2, tags=(("x", "é\n"),), model="\u2028")]
LINES = [
    journal_record.settlement_line(one) if isinstance(one, LedgerRow) else journal_record.intent_line(one)
    for one in ENTRIES
]


def test_what_is_written_is_read() -> None:
    read = journal_record.records(HEAD + b"".join(LINES))
    assert read[:3] == ENTRIES[:3]
    assert read[3] == row(2, tags=(("x", "é"),), model="\u2028")  # tags are cleaned when they are read
    assert journal_record.records(HEAD) == []
    assert journal_record.records(b"") == []


def test_cut_at_any_byte_only_the_last_record_is_torn() -> None:
    whole = HEAD + b"".join(LINES)
    ends = [len(HEAD) + sum(map(len, LINES[:number])) for number in range(5)]
    for cut in range(len(HEAD), len(whole) + 1):
        read = journal_record.records(whole[:cut])
        complete = sum(end <= cut for end in ends[1:])
        assert [type(one) for one in read[:complete]] == [type(one) for one in ENTRIES[:complete]]
        torn = cut - ends[complete]
        assert read[complete:] == ([Damaged(torn, torn=True)] if torn else []), cut


@given(st.integers(0, len(LINES[1]) - 1), st.integers(1, 255))
def test_any_changed_byte_costs_one_record(place: int, change: int) -> None:
    damaged = bytearray(LINES[1])
    damaged[place] ^= change
    read = journal_record.records(HEAD + LINES[0] + bytes(damaged) + LINES[2])
    assert read[0] == ENTRIES[0]
    assert read[-1] == ENTRIES[2] or place == len(damaged) - 1  # without its newline it runs into the next
    assert all(isinstance(one, Damaged) for one in read[1:-1])
    assert row(1) not in read


@pytest.mark.parametrize(
    "line",
    [
        b"\0" * 4096,
        b"",
        b"S",
        b"S 00000002 00000000 {}",
        b"X" + LINES[1][1:-1],
        b"I" + LINES[1][1:-1],  # a settlement that says it is an intent
        LINES[1][:-1] + b" ",
        b"S 00000004 2c2f0d8c null",
    ],
    ids=lambda line: repr(line[:24]),
)
def test_what_is_no_record_is_told(line: bytes) -> None:
    read = journal_record.records(LINES[0] + line + b"\n" + LINES[2])
    assert read == [ENTRIES[0], Damaged(len(line), torn=False), ENTRIES[2]]


@pytest.mark.parametrize(
    "hostile",
    [
        row(1, model="\ud800", tags=(("a\udfff", "b"),), code="\0"),
        row(1, cost_nanousd=2**70, input_tokens=-(2**70)),
        row(1, total_ms=float("nan"), first_event_ms=float("inf")),
    ],
)
def test_any_row_can_be_written(hostile: LedgerRow) -> None:
    line = journal_record.settlement_line(hostile)
    assert line.count(b"\n") == 1
    (read,) = journal_record.records(line)
    assert isinstance(read, LedgerRow)
    assert read.id == hostile.id


def test_other_versions_are_told_by_the_first_line() -> None:
    assert journal_record.foreign(b"penstock-journal 2\n")
    assert not journal_record.foreign(HEAD)
    assert not journal_record.foreign(b"penstock-jour")  # torn when it was begun
    assert not journal_record.foreign(b"")


def test_fields_of_other_versions_are_passed_over() -> None:
    (read,) = journal_record.records(_with(LINES[1], b'{"colour":"red",'))
    assert read == row(1)


def _with(line: bytes, begin: bytes) -> bytes:
    from zlib import crc32  # noqa: PLC0415 - for this alone

    document = begin + line[line.index(b"{") + 1 : -1]
    return b"S %08x %08x %b\n" % (len(document), crc32(document), document)
