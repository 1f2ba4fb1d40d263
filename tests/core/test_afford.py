"""Whether a target fits its cost tier: rows by hand, and against every cap there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.afford import Afforded, NotAfforded, afford, afford_text
from proxy.core.cost import Bounds, UnpricedMode, UnpricedPolicy, worst_case
from proxy.core.pricing import Terms
from proxy.core.tariff import LOCAL, Period, Price, Tariff, Tier, flat, rates, unknown
from proxy.terms import NanoUsd, PriceSource

PROMPT = Bounds(1000)
DEAR = Price(flat(rates(input=2_000_000, output=10_000_000)), PriceSource.LISTED)
STRANGE = unknown("nobody lists it")
ECONOMY, PREMIUM = NanoUsd(10**6), NanoUsd(5 * 10**7)
RESERVE = UnpricedPolicy(UnpricedMode.RESERVE, NanoUsd(10**6))


def held(terms: Terms, *, output_cap: int | None = None, choices: int = 1) -> tuple[int | None, int] | str:
    found = afford(terms, PROMPT, 0, output_cap=output_cap, choices=choices)
    return found.why if isinstance(found, NotAfforded) else (found.output_cap, found.hold_nanousd)


@pytest.mark.parametrize(
    ("terms", "output_cap", "choices", "expected"),
    [
        (Terms(DEAR, PREMIUM), None, 1, (4096, 42_960_000)),
        (Terms(DEAR, PREMIUM), None, 2, (2400, 50_000_000)),
        (Terms(DEAR, PREMIUM, 100), None, 1, (100, 3_000_000)),
        (Terms(DEAR, PREMIUM), 4800, 1, (None, 50_000_000)),
        (Terms(DEAR), None, 1, (None, 42_960_000)),
        (Terms(DEAR, None, 8192), None, 1, (8192, 83_920_000)),
        (Terms(LOCAL, ECONOMY), None, 1, (4096, 0)),
        (Terms(STRANGE, ECONOMY, None, RESERVE), None, 1, (4096, 10**6)),
        (Terms(STRANGE, ECONOMY, 128, RESERVE), None, 1, (128, 10**6)),
        (Terms(STRANGE, NanoUsd(1), None, UnpricedPolicy(UnpricedMode.FREE)), None, 1, (4096, 0)),
        (
            Terms(DEAR, ECONOMY, cost_tier="economy"),
            None,
            1,
            "256 tokens of answer may cost 0.00456 USD with this prompt, and cost tier economy allows 0.001 USD",
        ),
        (
            Terms(DEAR, PREMIUM),
            4801,
            1,
            "4801 tokens of answer may cost 0.05001 USD with this prompt, and cost tier asked for allows 0.05 USD",
        ),
        (
            Terms(STRANGE, ECONOMY, cost_tier="economy"),
            None,
            1,
            (4096, ECONOMY),
        ),
        (
            Terms(STRANGE, unpriced=UnpricedPolicy(UnpricedMode.REJECT)),
            None,
            1,
            "its price is unknown (nobody lists it), and the route says unpriced: reject",
        ),
    ],
)
def test_what_is_afforded(
    terms: Terms, output_cap: int | None, choices: int, expected: tuple[int | None, int] | str
) -> None:
    assert held(terms, output_cap=output_cap, choices=choices) == expected


def test_what_was_rejected_for_want_of_a_price_says_so() -> None:
    rejected = afford(Terms(STRANGE, unpriced=UnpricedPolicy(UnpricedMode.REJECT)), PROMPT, 0)
    dear = afford(Terms(DEAR, ECONOMY), PROMPT, 0)
    assert isinstance(rejected, NotAfforded)
    assert isinstance(dear, NotAfforded)
    assert (rejected.unpriced, dear.unpriced) == (True, False)


@given(
    ceiling=st.integers(1, 10**6),
    charged=st.builds(rates, input=st.integers(0, 1000), output=st.integers(0, 100_000)),
    most=st.none() | st.integers(1, 600),
    choices=st.integers(1, 3),
)
def test_the_cap_is_the_largest_whose_worst_case_fits(
    ceiling: int, charged: object, most: int | None, choices: int
) -> None:
    tariff = flat(charged)  # type: ignore[arg-type] # Rates, by the strategy
    assert isinstance(tariff, Tariff)
    terms = Terms(Price(tariff, PriceSource.LISTED), NanoUsd(ceiling), most)
    found = afford(terms, PROMPT, 0, choices=choices)

    def fits(cap: int) -> bool:
        return worst_case(Bounds(1000, cap * choices), tariff, 0) <= ceiling

    largest = 4096 if most is None else most
    if isinstance(found, Afforded):
        assert found.output_cap is not None
        assert fits(found.output_cap)
        assert found.output_cap == largest or not fits(found.output_cap + 1)
        assert found.hold_nanousd == worst_case(Bounds(1000, found.output_cap * choices), tariff, 0)
    else:
        assert not fits(min(256, largest))


RATE = st.integers(0, 10**9)


@given(
    tariff=st.builds(
        lambda tiers, since: Tariff((Period(tuple(tiers), since),)),
        st.lists(
            st.builds(
                lambda above, **named: Tier(above, rates(**named)),
                st.integers(0, 1000),
                input=RATE,
                output=RATE,
                cached=st.none() | RATE,
                cache_write=st.none() | RATE,
                cache_write_1h=st.none() | RATE,
                reasoning=st.none() | RATE,
                audio_input=st.none() | RATE,
                image_output=st.none() | RATE,
                request=RATE,
            ),
            min_size=1,
            max_size=2,
        ),
        st.none() | st.just(5),
    ),
    input_tokens=st.integers(0, 10**7),
    cap=st.integers(0, 10**6),
    choices=st.integers(1, 8),
)
def test_text_is_held_for_as_by_the_long_way(tariff: Tariff, input_tokens: int, cap: int, choices: int) -> None:
    terms = Terms(Price(tariff, PriceSource.LISTED))
    short = afford_text(terms, input_tokens, cap * choices)
    long = afford(terms, Bounds(input_tokens), 10, output_cap=cap, choices=choices)
    assert isinstance(long, Afforded)
    assert short == (long.hold_nanousd if len(tariff.periods[0].tiers) == 1 else None)
    assert afford_text(Terms(Price(tariff, PriceSource.LISTED), NanoUsd(1)), input_tokens, cap) is None
