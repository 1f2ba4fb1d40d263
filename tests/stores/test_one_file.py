"""Several stores of one process in one SQLite file, beside another process: nobody takes the log from under them."""

import subprocess
import sys
from pathlib import Path

from proxy.core.audit import act
from proxy.stores.sqlite.audit import SqliteAudit
from proxy.stores.sqlite.keys import SqliteKeys
from proxy.stores.sqlite.secrets import SqliteSecrets
from tests.keys import new_key

COUNT = (
    "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM virtual_key').fetchone()[0])"
)


def counted_elsewhere(path: Path) -> int:
    """How many keys another process sees, which opens the file and closes it again."""
    ran = subprocess.run([sys.executable, "-c", COUNT, str(path)], capture_output=True, text=True, check=True)
    return int(ran.stdout)


async def test_s09_what_is_written_after_another_process_has_closed_the_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "trust.sqlite3"
    keys, audit, sealed = SqliteKeys(path), SqliteAudit(path), SqliteSecrets(path)
    await keys.open()
    await audit.open()
    assert await sealed.change() == 0
    log = Path(f"{path}-wal")
    written_to = log.stat().st_ino
    assert counted_elsewhere(path) == 0
    assert log.stat().st_ino == written_to, "it is not the other process's to remove"
    assert await keys.create(new_key()[1])
    await audit.append(act(1, "admin key", "POST /admin/keys", "done"))
    assert counted_elsewhere(path) == 1
    for store in (keys, audit, sealed):
        await store.close()
    assert [one.name for one in tmp_path.iterdir()] == ["trust.sqlite3"], "no draft is left"
    assert path.stat().st_mode & 0o777 == 0o600
