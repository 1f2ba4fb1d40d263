"""`penstock`, with leases of a test's own and a store that is waited for.

`python -m tests.instances.process LEASE_S ARGUMENTS` is `penstock ARGUMENTS`. What must hold exactly of what is shared holds
while the store answers; on a busy machine it is slower than 20 ms, and what is done then is another test's subject.
"""

import sys

from proxy.cli.main import main
from proxy.phases import breakers, budget_audit, budgets, flight, recall
from tests.limits import stage as limits
from tests.money import process as money

ANSWER_S = 5.0


def patient(lease_s: float) -> None:
    limits.short_leases(lease_s)
    money.short_leases(lease_s)  # and a Redis that is waited for
    changed = (
        (breakers, "LEASE_ASKED_S", ANSWER_S),
        (flight, "LEASE_S", lease_s),
        (flight, "RENEW_S", lease_s / 3),
        (recall, "LEASE_S", lease_s),
        (budget_audit, "LOOK_EVERY_S", 0.1),
        (budget_audit, "AUDIT_SOON_S", 0.2),
        (budget_audit, "AUDIT_EVERY_S", 1.0),  # what a journal brings late is in the books by then
        (budgets, "AUDIT_SOON_S", 0.2),
    )
    for module, name, seconds in changed:
        assert hasattr(module, name)
        setattr(module, name, seconds)


if __name__ == "__main__":
    patient(float(sys.argv.pop(1)))
    main()
