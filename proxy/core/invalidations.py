"""What has been invalidated in a cache, and when: so that an answer is not served which was asked for before.

Every invalidation has a number, the *generation* that begins with it. An answer carries the generation in which it was
*asked for*, and is stale if a later number's selector selects it: no matter when it was stored, or by whom. So invalidating
is one step, however much is stored, and reaches what is still on its way. What is stale is swept out afterwards, to make
room and to be counted; nothing hangs on that.

The same selector again takes the place of the former. Where there are too many, the oldest is given up and its number
becomes the *floor*: everything asked for before is stale. That is too much, which is harmless, and so is beginning anew
with the present as the floor where all this has been lost.

Held by `tests/core/test_invalidations.py`: a reference that keeps every invalidation for ever.
"""

import heapq
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from proxy.core.cache_selector import EVERYTHING, Labels, Selector, matches
from proxy.terms import Generation

SELECTORS_MAX: Final = 1024  # one a document that changes, say; beyond them an answer costs a miss and no mistake
COMPOUND_MAX: Final = 64  # of those, patterns and several things at once: each is compared, for 3 us

_Facet = tuple[str, str]
_Key = TypeVar("_Key")


class Invalidations:
    """Immutable. ``head`` is the generation now, ``floor`` the first whose answers may still be good."""

    __slots__ = ("_compound", "_facets", "floor", "head")

    def __init__(
        self,
        floor: Generation,
        head: Generation | None = None,
        facets: Mapping[_Facet, Generation] = MappingProxyType({}),
        compound: Mapping[Selector, Generation] = MappingProxyType({}),
    ) -> None:
        """Nothing was invalidated, where only the floor is given."""
        self.floor = floor
        self.head = floor if head is None else head
        self._facets = facets
        self._compound = compound

    def __len__(self) -> int:
        return len(self._facets) + len(self._compound)

    def after(self, news: Iterable[tuple[Selector, Generation]], floor: Generation | None = None) -> "Invalidations":
        """With later ones, and with a higher floor. The same news twice are no news."""
        facets, compound = dict(self._facets), dict(self._compound)
        head, floor = self.head, max(self.floor, self.floor if floor is None else floor)
        for selector, number in news:
            head = max(head, number)
            facet = _facet(selector)
            if selector == EVERYTHING:
                floor = max(floor, number)
            elif facet is not None:
                facets[facet] = max(number, facets.get(facet, number))
            else:
                compound[selector] = max(number, compound.get(selector, number))
        floor = max(
            floor,
            _given_up([*compound.values()], COMPOUND_MAX),
            _given_up([*facets.values(), *compound.values()], SELECTORS_MAX),
        )
        if floor > self.floor:
            facets, compound = _above(facets, floor), _above(compound, floor)
        return Invalidations(floor, max(head, floor), facets, compound)

    def covers(self, labels: Labels, asked: Generation) -> bool:
        """Whether an answer that was asked for in this generation is stale. Most are of the present one: that is quick."""
        if asked >= self.head:
            return False
        if asked < self.floor:
            return True
        facets = [("route", labels.route), ("account", labels.account), *(("tag", tag) for tag in labels.tags)]
        if any(self._facets.get(facet, asked) > asked for facet in facets):
            return True
        return any(number > asked and matches(selector, labels) for selector, number in self._compound.items())


def _given_up(numbers: list[Generation], most: int) -> Generation:
    """The highest number that has to go, so that no more are left than may be; 0 where none has."""
    too_many = len(numbers) - most
    return Generation(0) if too_many <= 0 else heapq.nsmallest(too_many, numbers)[-1]


def _above(numbers: Mapping[_Key, Generation], floor: Generation) -> dict[_Key, Generation]:
    return {key: number for key, number in numbers.items() if number > floor}


def _facet(selector: Selector) -> _Facet | None:
    """The one thing that is given, where a table can find it."""
    match selector:
        case Selector(route=str(route), tag=None, account=None, pattern=None):
            return "route", route
        case Selector(route=None, tag=str(tag), account=None, pattern=None):
            return "tag", tag
        case Selector(route=None, tag=None, account=str(account), pattern=None):
            return "account", account
    return None
