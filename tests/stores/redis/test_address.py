"""What a URL may say, how it is shown, and what is refused."""

import pytest

from proxy.stores.redis.address import SUPPORTED, Address, BadRedisUrl, parse

GOOD: dict[str, tuple[str, str]] = {
    "plain": ("redis://localhost", "redis://localhost:6379/0"),
    "database": ("redis://cache.internal:6380/3", "redis://cache.internal:6380/3"),
    "database as an option": ("redis://localhost?db=4", "redis://localhost:6379/4"),
    "a slash": ("redis://localhost/", "redis://localhost:6379/0"),
    "password": ("redis://:s3cret-canary@localhost", "redis://localhost:6379/0"),
    "user": ("redis://penstock:s3cret%2Dcanary@localhost", "redis://localhost:6379/0"),
    "TLS": ("rediss://localhost?ssl_ca_certs=/etc/ca.pem", "rediss://localhost:6379/0"),
    "IPv6": ("redis://[::1]:6379", "redis://[::1]:6379/0"),
    "socket": ("unix:///run/redis/s?db=2", "unix:///run/redis/s?db=2"),
    "socket with a password": ("unix://:s3cret-canary@/run/redis/s", "unix:///run/redis/s?db=0"),
    "sentinels": ("redis+sentinel://a,b:26380/main", "redis+sentinel://a:26379,b:26380/main/0"),
    "sentinels, all said": (
        "rediss+sentinel://u:s3cret-canary@a:1,[::1]:2/main/5?sentinel_password=s3cret-canary",
        "rediss+sentinel://a:1,[::1]:2/main/5",
    ),
    "cluster": ("redis+cluster://a,b:6380", "redis+cluster://a:6379,b:6380"),
    "cluster, its only database": ("redis+cluster://a/0", "redis+cluster://a:6379"),
    "cluster, all said": (
        "rediss+cluster://u:s3cret-canary@a:1,[::1]:2?ssl_check_hostname=false",
        "rediss+cluster://a:1,[::1]:2",
    ),
    "upper case": ("REDIS://localhost", "redis://localhost:6379/0"),
}


@pytest.mark.parametrize(("url", "shown"), GOOD.values(), ids=GOOD)
def test_what_is_understood(url: str, shown: str) -> None:
    address = parse(url)
    assert address.shown == shown
    if "canary" in url:
        assert address.password == "s3cret-canary"
        assert set(address.secrets) == {"s3cret-canary"}
    assert "canary" not in repr(address)


def test_what_is_taken_from_a_url() -> None:
    assert parse("redis://user:pass%40word@h:1/2") == Address(
        (("h", 1),), database=2, username="user", password="pass@word"
    )
    assert parse("rediss://h?ssl_check_hostname=false").options == (("ssl_check_hostname", False),)
    assert parse("redis+sentinel://h/main").service == "main"


def test_a_node_of_a_cluster_is_reached_as_the_others_are() -> None:
    cluster = parse("rediss+cluster://user:s3cret@a,b?ssl_ca_certs=/etc/ca.pem")
    assert cluster.cluster
    assert cluster.hosts == (("a", 6379), ("b", 6379))
    assert cluster.of_node(("c", 7000)) == parse("rediss://user:s3cret@c:7000?ssl_ca_certs=/etc/ca.pem")


BAD: dict[str, tuple[str, str]] = {
    "empty": ("", "no scheme"),
    "a host": ("localhost:6379", "its scheme is 'localhost'"),
    "http": ("http://localhost", "its scheme is 'http'"),
    "a cluster's other database": ("redis+cluster://a,b/1", "no databases but 0"),
    "a cluster's service": ("redis+cluster://a,b/main", "the database is a number"),
    "a cluster of nothing": ("redis+cluster://a,,b", "names no host"),
    "a cluster, shorter": ("cluster://a", "its scheme is 'cluster'"),
    "a sentinel's option": ("redis+cluster://a?sentinel_password=x", "the option 'sentinel_password'"),
    "no host": ("redis://", "names no host"),
    "no host but a port": ("redis://:6379", "names no host"),
    "a port that is none": ("redis://h:x", "a port is a number"),
    "a port too large": ("redis://h:65536", "a port is a number"),
    "open bracket": ("redis://[::1", "cannot be read"),
    "two hosts": ("redis://a:1,b:2", "a port is a number"),
    "database no number": ("redis://h/x", "the database is a number"),
    "path too long": ("redis://h/1/2", "too many parts"),
    "socket without a path": ("unix://", "three slashes"),
    "socket with two slashes": ("unix://run/s", "three slashes"),
    "sentinels of nothing": ("redis+sentinel://h", "which service"),
    "sentinels of nothing, but a slash": ("redis+sentinel://h/", "which service"),
    "unknown option": ("redis://h?socket_timeout=5", "the option 'socket_timeout'"),
    "TLS option without TLS": ("redis://h?ssl_ca_certs=x", "the option 'ssl_ca_certs'"),
    "TLS not verified": ("rediss://h?ssl_cert_reqs=none", "the option 'ssl_cert_reqs'"),
    "host name neither checked nor not": ("rediss://h?ssl_check_hostname=maybe", "true or false"),
    "half an option": ("redis://h?db", "cannot be read"),
}


@pytest.mark.parametrize(("url", "why"), BAD.values(), ids=BAD)
def test_what_is_refused(url: str, why: str) -> None:
    with pytest.raises(BadRedisUrl, match="REDIS_URL cannot be used") as caught:
        parse(url)
    assert why in str(caught.value)
    assert SUPPORTED in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cret-canary@h:x",
        "http://:s3cret-canary@h",
        "redis://s3cret-canary@",
        "redis://:a?s3cret-canary@h",
        "redis://:a?s3cret-canary=b@h/0",
        "redis://:a?b&s3cret-canary=@h/0",
        "redis://:a#s3cret-canary@h/0",
        "redis://:a/s3cret-canary@h/0",
        "redis://:s3cret-canary@h\u2100st/0",
    ],
)
def test_a_refusal_repeats_no_password(url: str) -> None:
    with pytest.raises(BadRedisUrl) as caught:
        parse(url)
    assert "canary" not in str(caught.value)
