"""Several credentials of one provider, on real sockets: which is shown, and what clients see of a refused one (F017)."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from proxy.core.breaker import credential_subject
from proxy.phases.probe import Probe
from proxy.terms import ProviderId
from tests.conftest import Start
from tests.edge.doorway import KEY
from tests.edge.doorway import ask as ask_admin
from tests.edge.recorder import Recorder, answer
from tests.gateway import Connection, Gateway, get

GOOD = answer(200, b'{"choices":[{"index":0,"finish_reason":"stop"}]}', "content-type: application/json")
ENVIRON = {"A": "first-key-0123456789", "B": "second-key-0123456789", "C": "third-key-0123456789"}
EVENTS = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class KeyedRecorder(Recorder):
    """An upstream that has revoked some keys, and quotes them when it says so."""

    def refuse(self, names: Iterable[str], status: int = 401) -> None:
        revoked = {ENVIRON[name] for name in names}

        def answers(number: int) -> bytes:
            shown = self.shown(number - 1)
            if shown in revoked:
                return answer(status, orjson.dumps({"error": {"message": f"Incorrect API key provided: {shown}"}}))
            return GOOD

        self.answers = answers

    def shown(self, index: int) -> str:
        return self.received[index].headers["authorization"].removeprefix("Bearer ")

    @property
    def names(self) -> str:
        """The names of the keys that were shown, in turn."""
        by_value = {value: name for name, value in ENVIRON.items()}
        return "".join(by_value[self.shown(index)] for index in range(len(self.received)))


@pytest.fixture
async def recorder() -> AsyncIterator[KeyedRecorder]:
    recorder = KeyedRecorder()
    yield recorder
    await recorder.stop()


async def started(start: Start, recorder: Recorder, keys: str = "[env:A, env:B]", **options: Any) -> Gateway:
    url = await recorder.start()
    return await start(
        f"""
providers:
  sim: {{like: openai, base_url: "{url}", api_key: {keys}}}
  spare: {{like: openai, base_url: "{url}", api_key: env:C}}
routes: {{alone: {{tiers: [sim/m]}}, pair: {{tiers: [sim/m, sim/other]}}, safe: {{tiers: [sim/m, spare/m]}}}}
""",
        environ=ENVIRON,
        admin_key=KEY,
        **options,
    )


@pytest.mark.parametrize("status", [401, 403])
async def test_f017_another_key_serves_and_the_next_request_goes_straight_to_it(
    start: Start, recorder: KeyedRecorder, status: int
) -> None:
    gateway = await started(start, recorder)
    recorder.refuse("A", status)
    first = await gateway.ask("alone")
    assert (first.status, first.headers["x-penstock-attempts"], recorder.names) == (200, "2", "AB")
    second = await gateway.ask("alone")
    assert (second.status, second.headers["x-penstock-attempts"], recorder.names) == (200, "1", "ABB")
    assert (await gateway.ask("sim/quite-another")).status == 200
    assert recorder.names == "ABBB", "a credential is refused for all targets of its provider"
    (row, *_) = await gateway.booked(3)
    assert (row.outcome, row.attempts, row.fell_back) == ("ok", 2, False)


async def test_the_first_key_serves_while_it_is_let(start: Start, recorder: KeyedRecorder) -> None:
    gateway = await started(start, recorder)
    recorder.refuse("")
    for _ in range(5):
        assert (await gateway.ask("alone")).status == 200
    assert recorder.names == "AAAAA"


async def test_f017_a_stream_is_served_by_another_key(start: Start, recorder: KeyedRecorder) -> None:
    gateway = await started(start, recorder)
    recorder.answers = lambda number: (
        answer(401, b'{"error":{"message":"Incorrect API key"}}')
        if number == 1
        else answer(200, EVENTS, "content-type: text/event-stream")
    )
    got = await gateway.ask("alone", stream=True)
    assert (got.status, got.end, recorder.names) == (200, "whole", "AB")
    assert b'"content":"hi"' in got.body


async def test_f017_the_upload_of_a_form_is_sent_again_with_another_key(start: Start, recorder: KeyedRecorder) -> None:
    gateway = await started(start, recorder)
    recorder.refuse("A")
    form = (
        b'--edge\r\ncontent-disposition: form-data; name="model"\r\n\r\nsim/m\r\n'
        b'--edge\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--edge--\r\n'
    )
    client = await Connection.open(gateway.port)
    client.post("/v1/audio/transcriptions", form, {"content-type": "multipart/form-data; boundary=edge"})
    assert (await client.answer()).status == 200
    await client.close()
    assert recorder.names == "AB"
    assert recorder.received[0].body == recorder.received[1].body
    assert b"RIFF" in recorder.received[1].body


async def test_f017_both_revoked_is_502_for_the_first_and_503_afterwards(start: Start, recorder: KeyedRecorder) -> None:
    gateway = await started(start, recorder)
    recorder.refuse("AB")
    first = await gateway.ask("pair")
    assert (first.status, first.error["code"], first.headers["x-penstock-attempts"]) == (502, "upstream_auth", "2")
    assert recorder.names == "AB", "the other target of the same provider is not asked with refused credentials"
    again = await gateway.ask("pair")
    assert (again.status, again.error["code"]) == (503, "no_target_available")
    assert "it refused the credential" in again.error["message"]
    assert recorder.names == "AB"
    for value in ENVIRON.values():
        assert value.encode() not in first.raw + again.raw, "S24"
    health = await get(gateway.port, "/health")
    assert (health.json()["status"], health.json()["providers"]["sim"]["healthy"]) == ("degraded", False)


async def test_f017_both_revoked_and_another_target_serves(start: Start, recorder: KeyedRecorder) -> None:
    gateway = await started(start, recorder)
    recorder.refuse("AB")
    got = await gateway.ask("safe")
    assert (got.status, got.headers["x-penstock-provider"], recorder.names) == (200, "spare", "ABC")
    await gateway.ask("safe")
    assert recorder.names == "ABCC"


async def test_a_provider_with_one_refused_key_of_two_is_healthy(start: Start, recorder: KeyedRecorder) -> None:
    gateway = await started(start, recorder)
    recorder.refuse("A")
    await gateway.ask("alone")
    told = (await get(gateway.port, "/health")).json()["providers"]["sim"]
    assert (told["healthy"], told["breaker"], told["last_error"]) == (True, "open", "credential_rejected")


async def test_a_probe_shows_the_next_key_where_one_is_refused(start: Start, recorder: KeyedRecorder) -> None:
    gateway = await started(start, recorder)
    recorder.refuse("A")
    runtime = gateway.runtime
    probe = Probe(runtime.upstream, runtime.now, runtime.wall, every_s=60)
    sim = runtime.table.providers[ProviderId("sim")]
    assert (await probe.ask([sim]))[sim.id].healthy
    assert recorder.names == "AB"
    recorder.refuse("AB")
    assert (await probe.ask([sim]))[sim.id].error == "credential_rejected"


async def test_a_key_that_was_put_right_serves_again_once_it_is_let_go(start: Start, recorder: KeyedRecorder) -> None:
    gateway = await started(start, recorder)
    recorder.refuse("A")
    await gateway.ask("alone")
    subject = credential_subject(ProviderId("sim"), ENVIRON["A"])
    path, with_key = "/admin/breakers/reset", {"x-api-key": KEY}
    done = await ask_admin(gateway.port, path, with_key, method="POST", body=orjson.dumps({"target": subject}))
    assert done.json()["reset"] == [subject]
    recorder.refuse("")
    await gateway.ask("alone")
    assert recorder.names == "ABA"


async def test_a_refused_key_is_tried_again_by_one_request_and_no_client_sees_it(
    start: Start, recorder: KeyedRecorder
) -> None:
    """HALF_OPEN: the probe is refused, and its request goes on with the other key like those beside it."""
    gateway = await started(
        start, recorder, change=lambda table: replace(table, breaker=replace(table.breaker, long_s=0.3))
    )
    recorder.refuse("A")
    await gateway.ask("alone")
    await asyncio.sleep(0.35)
    answers = await asyncio.gather(*(gateway.ask("alone") for _ in range(8)))
    assert {one.status for one in answers} == {200}
    assert sorted(one.headers["x-penstock-attempts"] for one in answers) == ["1"] * 7 + ["2"]
    assert recorder.names[2:].count("A") == 1


async def test_operators_are_told_which_credentials_there_are(start: Start, recorder: KeyedRecorder) -> None:
    gateway = await started(start, recorder)
    told = await ask_admin(gateway.port, "/admin/providers", {"x-api-key": KEY})
    (sim,) = [one for one in told.json()["providers"] if one["id"] == "sim"]
    subjects = [credential_subject(ProviderId("sim"), ENVIRON[name]) for name in "AB"]
    assert sim["credentials"] == [
        {"origin": origin, "breaker": subject} for origin, subject in zip(("env:A", "env:B"), subjects, strict=True)
    ]
    assert sim["key_variables"] == ["A", "B"]
    for value in ENVIRON.values():
        assert value.encode() not in told.raw


async def test_a_moderation_refusal_shows_no_other_key(start: Start, recorder: KeyedRecorder) -> None:
    gateway = await started(start, recorder)
    recorder.answers = lambda _: answer(403, b'{"error":{"message":"flagged","code":"content_policy_violation"}}')
    assert (await gateway.ask("alone")).status == 403
    assert recorder.names == "A"
