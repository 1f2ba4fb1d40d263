"""`penstock breakers` against a server in a process of its own."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

from tests.edge.recorder import Recorder, answer
from tests.gateway import CHAT, send
from tests.server.process import ADMIN_KEY, PENSTOCK, config_file, serving


async def run(port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "PENSTOCK_ADMIN_KEY": ADMIN_KEY,
        "PENSTOCK_PORT": str(port),
        "COLUMNS": "200",
    }
    return await asyncio.to_thread(
        subprocess.run, [*PENSTOCK, "breakers", *arguments], capture_output=True, text=True, env=environ, check=False
    )


async def test_status_and_reset(tmp_path: Path) -> None:
    recorder = Recorder(lambda _: answer(500, b'{"error":{"message":"boom"}}'))
    url = await recorder.start()
    text = f"providers: {{sim: {{like: vllm, base_url: '{url}'}}}}\ndefaults: {{retry: {{attempts: 1}}}}\n"
    with serving("--config", config_file(tmp_path, text)) as (_, port, _):
        quiet = await run(port, "status")
        assert (quiet.returncode, quiet.stdout) == (0, "All closed: nothing is held back.\n")
        for _ in range(5):
            await send(port, CHAT, b'{"model":"sim/m","messages":[]}')
        shown = await run(port, "status")
        assert shown.returncode == 0
        header, line = shown.stdout.splitlines()
        assert header.split() == ["TARGET", "STATE", "ASKED", "AGAIN", "FAILURES", "WHY"]
        assert line.split()[:3] == ["sim/m", "open", "in"]
        assert line.split()[-2:] == ["failures", "server_error"]
        (told,) = json.loads((await run(port, "status", "--json")).stdout)
        assert (told["target"], told["state"]) == ("sim/m", "open")
        wrong = await run(port, "reset", "sim/n")
        assert (wrong.returncode, "Did you mean 'sim/m'?" in wrong.stderr) == (1, True)
        assert (await run(port, "reset", "sim/m")).stdout == "Reset: sim/m\n"
        assert json.loads((await run(port, "status", "--json")).stdout)[0]["state"] == "closed"
        assert (await run(port, "reset")).returncode == 0
    await recorder.stop()


async def test_without_a_server_it_says_what_to_start() -> None:
    missing = await run(1, "status")
    assert missing.returncode == 1
    assert "penstock serve" in missing.stderr
    assert "Traceback" not in missing.stderr
