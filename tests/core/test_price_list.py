"""Names and what a list makes of them: the first model that fits, and nothing left behind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.price_list import Fits, Model, PriceList, Rule
from proxy.core.tariff import flat, rates


def whole(text: str) -> Rule:
    return Rule(Fits.WHOLE, text)


def any_of(*rules: Rule) -> Rule:
    return Rule(Fits.ANY, rules=rules)


def listed(*rules: Rule) -> PriceList:
    return PriceList(tuple(Model(f"m{number}", rule, flat(rates(input=number))) for number, rule in enumerate(rules)))


LIST = listed(
    any_of(whole("gpt-4o"), Rule(Fits.START, "gpt-4o-2024")),
    Rule(Fits.START, "gpt-4o-mini"),
    whole("gpt-4o-mini-tts"),  # never reached: the family before it fits
    Rule(Fits.EXPRESSION, r"^o[134]-\d{4}-\d{2}-\d{2}$"),
    Rule(Fits.END, ":free"),
    Rule(Fits.ALL, rules=(Rule(Fits.PART, "claude"), Rule(Fits.PART, "haiku"))),
    any_of(Rule(Fits.ALL, rules=(whole("a"), whole("b"))), any_of(whole("deep"), Rule(Fits.START, "deeper"))),
    whole("gemini-2.5-flash"),
)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("gpt-4o", "m0"),
        ("GPT-4o", "m0"),
        ("gpt-4o-2024-11-20", "m0"),
        ("gpt-4o-mini", "m1"),
        ("gpt-4o-mini-tts", "m1"),
        ("o3-2025-04-16", "m3"),
        ("o3-20250416", "m3"),  # the date without dashes
        ("o3-20251301", None),  # no date
        ("x/y:free", "m4"),
        ("claude-3-haiku", "m5"),
        ("claude-3-opus", None),
        ("deep", "m6"),
        ("deeper-1", "m6"),
        ("a", None),
        ("models/gemini-2.5-flash", "m7"),
        ("", None),
        ("gpt-4o ", None),
    ],
)
def test_the_first_model_that_fits(name: str, found: str | None) -> None:
    model = LIST.find(name)
    assert (model.id if model else None) == found


_TEXT = st.text("ab-", max_size=3)
_SIMPLE = st.builds(Rule, st.sampled_from([Fits.WHOLE, Fits.START, Fits.END, Fits.PART]), _TEXT)
_RULE = st.recursive(
    _SIMPLE,
    lambda rules: st.builds(
        lambda how, inner: Rule(how, rules=tuple(inner)),
        st.sampled_from([Fits.ANY, Fits.ALL]),
        st.lists(rules, min_size=1, max_size=3),
    ),
    max_leaves=5,
)


@given(rules=st.lists(_RULE, max_size=8), name=_TEXT)
def test_the_index_finds_what_a_search_from_the_top_does(rules: list[Rule], name: str) -> None:
    made = listed(*rules)
    first = next((model for model in made.models if model.rule.fits(name)), None)
    assert made.find(name) is first
