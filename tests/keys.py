"""Virtual keys for tests."""

from typing import Any

from proxy.core import virtual_key
from proxy.core.key_record import KeyRecord
from proxy.core.virtual_key import Made, Pepper, Peppers

PEPPER = Pepper.of("Vn3rT8yLq1ZpW6sKx0BhD5mJc7GfU2aE")
OTHER_PEPPER = Pepper.of("aE2Uf7GcJm5DhB0xKs6WpZ1qLy8Tr3nV")
PEPPERS = Peppers(PEPPER)
CREATED = 1_795_000_000


def new_key(pepper: Pepper = PEPPER, **fields: Any) -> tuple[Made, KeyRecord]:
    """A key, and the record that a store has of it."""
    made = virtual_key.make()
    kept = {"name": "a test's", "created_at": CREATED, "created_by": "admin key", **fields}
    return made, KeyRecord(id=made.id, hash=pepper.hash_of(made.id, made.secret), last=made.last, **kept)
