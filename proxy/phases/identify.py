"""Phase 1, identify: who is calling? Before a byte of the body is read.

Access is open: every caller is the account `default`, whatever credential it shows.
"""

from proxy.phases.exchange import Exchange
from proxy.terms import DEFAULT_ACCOUNT


def identify(x: Exchange) -> None:
    x.account = DEFAULT_ACCOUNT
