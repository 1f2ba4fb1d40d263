"""The audit log's chain: what was changed, removed or moved is told by its number, and nothing secret gets in."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.audit import (
    CHANGES_CHARS_MAX,
    TEXT_CHARS_MAX,
    AuditEntry,
    AuditHead,
    Flaw,
    Noted,
    Verifier,
    act,
    anchor,
    chained,
    columns_of,
    digest,
    document,
    entry_from,
    noted_from,
    told,
)

HOME = "ab" * 16


def chain(count: int, installation: str = HOME) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    for number in range(count):
        done = act(1_700_000_000_000_000 + number, "admin key", "POST /admin/things", "done", subject=f"thing-{number}")
        entries.append(chained(_head(entries, installation), done))
    return entries


def _head(entries: list[AuditEntry], installation: str = HOME) -> AuditHead:
    if not entries:
        return AuditHead(installation, 0, anchor(installation))
    return AuditHead(installation, entries[-1].number, entries[-1].hash)


def flaws(entries: list[AuditEntry], head: AuditHead, noted: Noted | None = None, batch: int = 3) -> list[Flaw]:
    verifier = Verifier(head, noted)
    for start in range(0, len(entries), batch):
        verifier.feed(entries[start : start + batch])
    return list(verifier.end())


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_s68_a_chain_as_it_was_written_has_no_flaw(count: int, batch: int) -> None:
    entries = chain(count)
    head = _head(entries)
    assert flaws(entries, head, batch=batch) == []
    assert flaws(entries, head, Noted(head.number, head.hash), batch) == []
    assert flaws([*entries, *chain(count + 2)[count:]], head, batch=batch) == [], "what is added meanwhile is left out"


CHANGES: list[dict[str, Any]] = [
    {"at_us": 1},
    {"actor": "somebody"},
    {"role": "viewer"},
    {"act": "POST /admin/other"},
    {"outcome": "refused"},
    {"subject": ""},
    {"changes": '{"limit":1}'},
    {"request_id": "req_1"},
    {"peer": "127.0.0.1"},
    {"account": "acme"},
    {"begun": 1},
    {"at_us": b"\xff"},
    {"subject": None},
    {"changes": 7},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_s68_one_changed_value_is_told_with_its_number(change: dict[str, Any]) -> None:
    entries = chain(7)
    for place in range(7):
        changed = list(entries)
        changed[place] = replace(entries[place], act=replace(entries[place].act, **change))
        found = flaws(changed, _head(entries))
        assert [flaw.number for flaw in found] == [place + 1]
        assert "changed" in found[0].what


def test_s68_an_entry_with_a_hash_that_fits_breaks_the_chain_behind_it() -> None:
    entries = chain(7)
    forged = replace(entries[3].act, subject="forged")
    changed = [*entries]
    changed[3] = replace(entries[3], act=forged, hash=digest(4, forged, entries[3].previous))
    assert flaws(changed, _head(entries)) == [Flaw(5, "not chained to the entry before it")]
    last = [*entries[:6], replace(entries[6], act=forged, hash=digest(7, forged, entries[6].previous))]
    assert [flaw.number for flaw in flaws(last, _head(entries))] == [7]


def test_s68_what_is_gone_is_told() -> None:
    entries = chain(7)
    head = _head(entries)
    assert flaws(entries[:6], head) == [Flaw(7, "missing from the end")]
    assert flaws(entries[:4], head) == [Flaw(5, "missing from the end, to 7")]
    assert flaws([], head) == [Flaw(1, "missing from the end, to 7")]
    assert flaws(entries[1:], head) == [Flaw(1, "missing")]
    assert flaws([*entries[:2], *entries[5:]], head) == [Flaw(3, "missing, to 5")]


def test_s68_two_that_were_swapped_are_both_told() -> None:
    entries = chain(7)
    one, two = entries[2], entries[4]
    swapped = [*entries]
    swapped[2], swapped[4] = replace(two, number=3), replace(one, number=5)
    assert {flaw.number for flaw in flaws(swapped, _head(entries))} >= {3, 5}
    swapped[2], swapped[4] = replace(one, act=two.act), replace(two, act=one.act)
    assert [flaw.number for flaw in flaws(swapped, _head(entries))] == [3, 5]


def test_s68_a_whole_new_chain_is_told_by_a_head_that_was_noted() -> None:
    entries, forged = chain(7), chain(9, "cd" * 16)
    noted = Noted(5, entries[4].hash)
    assert flaws(forged, _head(forged, "cd" * 16)) == []
    assert flaws(forged, _head(forged, "cd" * 16), noted) == [Flaw(5, "not the one that was noted")]
    assert flaws(entries[:3], _head(entries[:3]), noted) == [Flaw(5, "was noted, and the log ends at 3")]
    begin = Noted(0, anchor(HOME))
    assert flaws(entries, _head(entries), begin) == []
    assert [flaw.number for flaw in flaws(forged, _head(forged, "cd" * 16), begin)] == [0]


@given(removed=st.sets(st.integers(1, 12)), batch=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_s68_whatever_is_removed_is_told(removed: set[int], batch: int) -> None:
    entries = chain(12)
    left = [entry for entry in entries if entry.number not in removed]
    found = flaws(left, _head(entries), batch=batch)
    assert bool(found) == bool(removed)
    told_of: set[int] = set()
    for flaw in found:
        last = int(flaw.what.rpartition("to ")[2]) if ", to " in flaw.what else flaw.number
        told_of |= set(range(flaw.number, last + 1))
    assert told_of == removed


def test_the_flaws_of_a_ruin_are_bounded() -> None:
    entries = [replace(entry, act=replace(entry.act, actor="x")) for entry in chain(500)]
    assert len(flaws(entries, _head(chain(500)))) == 100


def test_a_head_is_read_as_it_is_printed() -> None:
    head = _head(chain(3))
    assert noted_from(f" {head} ") == Noted(3, head.hash)
    for wrong in ("", "3", "3:", f"-1:{head.hash}", f"3:{head.hash[:-1]}", f"x:{head.hash}", f"3:{head.hash.upper()}"):
        assert noted_from(wrong) is None


KEY = "sk-proj-AbCdEf0123456789AbCdEf0123456789"


def test_s68_nothing_secret_and_nothing_unbounded_gets_in() -> None:
    done = act(
        -5,
        f"key:{KEY}",
        "x" * 5000,
        "done",
        subject=f"a\0b\ud800{KEY}",
        changes={"label": KEY, "deep": [[[[[[KEY]]]]]], KEY: 1, "size": "y" * 5000},
        request_id=KEY,
        peer=KEY,
    )
    assert KEY not in repr(done)
    assert done.at_us == 0
    assert len(done.act) == TEXT_CHARS_MAX
    assert "\0" not in done.subject
    assert done.subject.startswith("a\ufffdb\ufffd")
    many = act(1, "admin key", "x", "done", changes={f"name {number}": "z" * 200 for number in range(100)})
    assert len(many.changes) <= CHANGES_CHARS_MAX
    assert orjson.loads(many.changes)["too_long"] > CHANGES_CHARS_MAX


def test_only_what_is_declared_is_kept_of_a_body() -> None:
    body = {"label": "team a", "value": "hunter2 hunter2", "requests": [{"messages": []}], "n": 3}
    assert told(body, frozenset({"label"})) == {
        "label": "team a",
        "value": "(15 characters)",
        "requests": "(1 in it)",
        "n": "(not kept)",
    }


def test_an_entry_goes_through_its_columns_and_into_a_document() -> None:
    entry = chained(_head([]), act(5, "admin key", "POST /x", "begun", changes={"b": 1, "a": {"c": None}}))
    assert entry_from(columns_of(entry)) == entry
    shown = document(entry)
    assert shown["changes"] == {"a": {"c": None}, "b": 1}
    assert (shown["number"], shown["hash"], shown["previous"]) == (1, entry.hash, anchor(HOME))
    assert document(replace(entry, act=replace(entry.act, changes="{")))["changes"] == "{"
