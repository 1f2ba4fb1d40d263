"""What people are told of limits: clients that are refused, and those that are let in, by headers."""

from collections.abc import Sequence

from proxy.core.bucket import Bucket
from proxy.core.limiting import LimitClaim, Limited, LimitStanding


def refusal(claim: LimitClaim, limited: Limited, tokens: int, wait_ms: int | None) -> str:
    """The message of a 429 `rate_limit_exceeded`: which limit of whom, the number, and when to come again."""
    who = whose(claim)
    again = "Try again soon." if wait_ms is None else f"Try again in {spelled(wait_ms)}."
    match limited:
        case Limited.REQUESTS if claim.requests is not None:
            rate, at_once = claim.requests.per_s, claim.requests.permits
            return f"{who} may send {rate:g} requests a second, {at_once} at once, and has done so. {again}"
        case Limited.TOKENS if claim.tokens is not None:
            limit = claim.tokens.permits
            if wait_ms is None:
                return (
                    f"This request may use {tokens} tokens, and {who} may use {limit} a minute. "
                    "Shorten the prompt or lower the output cap."
                )
            return (
                f"{who} may use {limit} tokens a minute, and this request may use {tokens}, "
                f"for which there is no room yet. {again}"
            )
        case _:
            return f"{who} may have {claim.slots} requests under way at once, and has. {again}"


def headers(claims: Sequence[LimitClaim], standings: Sequence[LimitStanding]) -> list[tuple[str, str]]:
    """`x-ratelimit-*` as at admission: of requests and of tokens, the subject with the least left of each."""
    told: list[tuple[str, str]] = []
    requests = [
        (claim.requests, one.requests_used)
        for claim, one in zip(claims, standings, strict=True)
        if claim.requests is not None
    ]
    if requests:
        told += _told("requests", *min(requests, key=_left))
    tokens = [
        (claim.tokens, one.tokens_used)
        for claim, one in zip(claims, standings, strict=True)
        if claim.tokens is not None
    ]
    if tokens:
        told += _told("tokens", *min(tokens, key=_left))
    return told


def whose(claim: LimitClaim) -> str:
    """As a sentence begins with it, or goes on."""
    kind, _, name = claim.subject.partition(":")
    return f"{kind.replace('_', ' ')} {name}"


def limits_told(claim: LimitClaim) -> str:
    """A subject's limits in a line."""
    words: list[str] = []
    if claim.requests is not None:
        words.append(f"{claim.requests.per_s:g} requests a second, {claim.requests.permits} at once")
    if claim.tokens is not None:
        words.append(f"{claim.tokens.permits} tokens a minute")
    if claim.slots is not None:
        words.append(f"{claim.slots} under way")
    return ", ".join(words)


def spelled(ms: int) -> str:
    """A time as OpenAI's headers write it: `6m0s`, `1.5s`, `20ms`, `0s`."""
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, rest = divmod(ms, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    if not minutes:
        return f"{seconds}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}s" if hours else f"{minutes}m{seconds}s"


def _told(kind: str, bucket: Bucket, used: int) -> list[tuple[str, str]]:
    return [
        (f"x-ratelimit-limit-{kind}", str(bucket.permits)),
        (f"x-ratelimit-remaining-{kind}", str(bucket.left(used))),
        (f"x-ratelimit-reset-{kind}", spelled(bucket.full_in_ms(used))),
    ]


def _left(one: tuple[Bucket, int]) -> int:
    return one[0].left(one[1])
