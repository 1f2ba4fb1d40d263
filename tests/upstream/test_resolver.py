"""Which addresses a provider's name may lead to, looked at where the connection is opened."""

import asyncio
import itertools
import socket
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from proxy.config.resolve import parse
from proxy.core.failure import FailureKind
from proxy.core.routing import Target
from proxy.ports import Call, Fault
from proxy.terms import RouteName
from proxy.upstream.client import UpstreamClient
from proxy.upstream.resolver import PublicResolver, is_no_metadata, is_public

PUBLIC: Final = ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34", "2002:5db8:d822::1", "64:ff9b::5db8:d822"]
PRIVATE: Final = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "192.0.2.1", "198.18.0.1",
    "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fc00::1", "fe80::1", "fe80::1%eth0", "ff02::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2001::1",
]  # fmt: skip
METADATA: Final = [
    "169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "fe80::a9fe:a9fe%eth0",
    "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "::169.254.169.254",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_s33_public(address: str) -> None:
    assert is_public(address)
    assert is_no_metadata(address)


@pytest.mark.parametrize("address", [*PRIVATE, *METADATA])
def test_s33_s34_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", METADATA)
def test_s34_metadata(address: str) -> None:
    assert not is_no_metadata(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "100.64.0.1", "192.168.0.1"])
def test_what_may_be_allowed_is_no_metadata(address: str) -> None:
    assert is_no_metadata(address)


class Names(AbstractResolver):
    """Answers with the next set of addresses each time: a name server that rebinds."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = itertools.cycle(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked += 1
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in next(self._answers)
        ]

    async def close(self) -> None:
        return


async def test_s33_of_several_addresses_only_the_public_ones_are_used() -> None:
    resolver = PublicResolver(set(), Names(["10.0.0.1", PUBLIC[0], "::1"]))
    assert [result["host"] for result in await resolver.resolve("api.example.com")] == [PUBLIC[0]]


@pytest.mark.parametrize("private", [set(), {"api.example.com"}], ids=["public", "allow_private"])
async def test_s34_no_name_leads_to_the_metadata_service(private: set[str]) -> None:
    for address in METADATA:
        with pytest.raises(OSError, match=r"api\.example\.com resolves to"):
            await PublicResolver(private, Names([address])).resolve("api.example.com")


async def test_allow_private_allows_the_rest() -> None:
    resolver = PublicResolver({"box"}, Names(["10.0.0.1", "169.254.169.254"]))
    assert [result["host"] for result in await resolver.resolve("box")] == ["10.0.0.1"]


def _target(url: str, *, allow_private: bool = False) -> Target:
    more = ", allow_private: true" if allow_private else ""
    text = f'providers: {{far: {{like: vllm, base_url: "{url}"{more}}}}}\nroutes: {{r: {{tiers: [far/m]}}}}'
    table = parse(text, "routes.yaml", {})
    return table.routes[RouteName("r")].tiers[0].targets[0]


def _call(url: str, target: Target, *, fresh: bool) -> Call:
    return Call(target, f"{url}/models", {}, b"", 1.0, fresh=fresh, method="GET")


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that connections are opened to; none is."""
    opened: list[str] = []

    async def refused(addr_infos: Any, **_: Any) -> Any:
        opened.extend(str(one[4][0]) for one in addr_infos)
        raise ConnectionRefusedError

    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", refused)
    return opened


async def test_s33_a_name_that_is_rebound_reaches_no_private_address(connects: list[str]) -> None:
    """Public while it is looked at, private when it is used: the addresses that were looked at are those that are used."""
    url = "https://api.example.com/v1"
    names = Names([PUBLIC[0]], ["127.0.0.1"], ["::ffff:127.0.0.1"], [PUBLIC[0], "10.0.0.1"], ["169.254.169.254"])
    target = _target(url)
    for _ in range(20):
        client = UpstreamClient(names=names)
        for fresh in (True, False):
            fault = await client.send(_call(url, target, fresh=fresh))
            assert isinstance(fault, Fault)
            assert fault.kind in (FailureKind.CONNECT_FAILED, FailureKind.RESET_BEFORE_HEAD)
        await client.close()
    assert names.asked >= 20
    assert set(connects) == {PUBLIC[0]}


async def test_s33_a_canary_on_this_machine_sees_no_connect() -> None:
    seen = 0

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        writer.close()

    canary = await asyncio.start_server(connected, "127.0.0.1", 0)
    url = f"https://api.example.com:{canary.sockets[0].getsockname()[1]}/v1"
    client = UpstreamClient(names=Names(["127.0.0.1"], ["::ffff:127.0.0.1"], ["0.0.0.0"], ["127.0.0.1", "10.0.0.1"]))
    for fresh in (True, False) * 10:
        assert isinstance(await client.send(_call(url, _target(url), fresh=fresh)), Fault)
    assert seen == 0
    await client.close()
    canary.close()
    await canary.wait_closed()


def test_s36_nothing_of_the_environment_and_no_cookies(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look() -> None:
        client = UpstreamClient()
        for session in (client._pooled, client._fresh):
            assert session.trust_env is False
            assert isinstance(session.cookie_jar, aiohttp.DummyCookieJar)
        await client.close()

    asyncio.run(look())
