"""What a simulator remembers between requests, all of it bounded: the oldest is forgotten first."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_KEYS_MAX: Final = 10_000
_OBJECTS_MAX: Final = 1000


@dataclass(slots=True)
class Shelf:
    """Objects of one kind, by their `id`."""

    _objects: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def put(self, made: Mapping[str, Any]) -> Mapping[str, Any]:
        if len(self._objects) >= _OBJECTS_MAX:
            del self._objects[next(iter(self._objects))]
        self._objects[made["id"]] = made
        return made

    def get(self, name: str) -> Mapping[str, Any] | None:
        return self._objects.get(name)

    def take(self, name: str) -> Mapping[str, Any] | None:
        return self._objects.pop(name, None)

    def newest_first(self) -> list[Mapping[str, Any]]:
        return [*reversed(self._objects.values())]

    def clear(self) -> None:
        self._objects.clear()


@dataclass(slots=True)
class Memory:
    """``files`` and ``batches``: what was uploaded or begun, by id, as a provider lists it. Never the bytes of a file."""

    files: Shelf = field(default_factory=Shelf)
    batches: Shelf = field(default_factory=Shelf)
    _keys: dict[str, None] = field(default_factory=dict)

    def is_first(self, memory_key: str) -> bool:
        """For scripts that fail once."""
        if memory_key in self._keys:
            return False
        if len(self._keys) >= _KEYS_MAX:
            del self._keys[next(iter(self._keys))]
        self._keys[memory_key] = None
        return True

    def clear(self) -> None:
        self._keys.clear()
        self.files.clear()
        self.batches.clear()
