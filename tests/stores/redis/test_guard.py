"""Up or down: five failures in a row, and what brings it back."""

from proxy.stores.redis.guard import FAILURES, Guard


def told(guard: Guard) -> tuple[float | None, str | None]:
    return guard.down_since, guard.last_error


def test_five_in_a_row_go_down() -> None:
    guard = Guard()
    went_down = [guard.failed("refused", 1000.0 + number) for number in range(FAILURES)]
    assert went_down == [False, False, False, False, True]
    assert told(guard) == (1004.0, "refused")
    assert not guard.failed("refused again", 1005.0)
    assert told(guard) == (1004.0, "refused again")
    assert not guard.up


def test_a_success_between_counts_anew() -> None:
    guard = Guard()
    for number in range(20):
        guard.failed("refused", 1000.0)
        if number % 4 == 3:
            guard.succeeded()
    assert guard.up


def test_only_the_probe_brings_it_back() -> None:
    guard = Guard()
    guard.fall("not there", 1000.0)
    guard.succeeded()  # one that was under way
    assert told(guard) == (1000.0, "not there")
    guard.recovered()
    assert told(guard) == (None, "not there")
    for _ in range(FAILURES - 1):
        assert not guard.failed("refused", 2000.0)
    assert guard.up
