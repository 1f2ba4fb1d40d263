"""Processes to kill: a folder's journals and one ledger, driven as workers drive them, until somebody ends them.

`python -m tests.server.crash <sqlite path or postgresql:// URL> <journal root> <acknowledgements>` reads a line a process
from its standard input, forks it (everything is imported once) and prints its number. Each process begins and settles
exchanges as fast as it can; after each entry is in the journal it appends a line to the acknowledgements, as an answered
client would remember: `I <id>` for an intent, `S <id>` for a settlement.
"""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

from proxy.core.ledger import Intent
from proxy.ports import Ledger
from proxy.server.journal import Journal
from proxy.server.outbox import Outbox
from proxy.stores.postgres.ledger import PostgresLedger
from proxy.stores.sqlite.ledger import SqliteLedger
from proxy.terms import AccountId, ExchangeId, NanoUsd, ProviderId
from tests.gateway import RecordingLog
from tests.rows import row

WORST_CASE = NanoUsd(777_000)
SEGMENT_BYTES = 16 * 1024  # so that some end within a process's short life
EXCHANGES_MAX = 100_000


def open_ledger(store: str) -> Ledger:
    return PostgresLedger(store) if store.startswith("postgresql:") else SqliteLedger(Path(store))


def intent(exchange_id: str) -> Intent:
    return Intent(
        id=ExchangeId(exchange_id),
        at_us=row().started_us + 1,
        started_us=row().started_us,
        account=AccountId("acme"),
        api="chat",
        provider=ProviderId("openai"),
        model="gpt-4o-mini",
        worst_case_nanousd=WORST_CASE,
    )


async def work(store: str, root: Path, acknowledgements: int) -> None:
    rng = random.Random()
    log = RecordingLog()
    outbox = Outbox(Journal(root, log, segment_bytes=SEGMENT_BYTES), open_ledger(store), log, batch_s=0.01, scan_s=0.02)
    replaying = asyncio.create_task(outbox.start())
    running: list[str] = []
    for number in range(EXCHANGES_MAX):
        exchange_id = f"{os.getpid()}-{number}"
        assert outbox.intend(intent(exchange_id))
        os.write(acknowledgements, f"I {exchange_id}\n".encode())
        running.append(exchange_id)
        if rng.random() < 0.9:
            over = running.pop(rng.randrange(len(running)))
            outbox.book(row(id=ExchangeId(over)))
            os.write(acknowledgements, f"S {over}\n".encode())
        await asyncio.sleep(0 if rng.random() < 0.7 else 0.002)
    await replaying


def main() -> None:
    store, root, told = sys.argv[1:]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead need not be waited for
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            acknowledgements = os.open(told, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            asyncio.run(work(store, Path(root), acknowledgements))
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    main()
