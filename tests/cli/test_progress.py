"""The bar that long work shows on a terminal."""

import sys

import pytest

from proxy.cli.progress import progress


def test_the_note_stands_behind_the_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    spent = iter(("0.0100 USD", "0.0200 USD", "0.0200 USD"))
    with progress(2, "asking", lambda: next(spent, "0.0200 USD")) as advance:
        advance(1)
        advance(1)
    shown = capsys.readouterr().err
    assert "asking" in shown
    assert "0.0200 USD" in shown


def test_nothing_is_drawn_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(2, "asking", lambda: "0.01 USD") as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")
