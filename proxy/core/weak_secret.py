"""Whether a secret that somebody chose is one: long enough, sendable, and not what a sample file says."""

from typing import Final

LENGTH_MIN: Final = 32
LENGTH_MAX: Final = 512  # it travels in a header
DIFFERENT_MIN: Final = 8  # 32 random hex digits have fewer different ones once in ten million times
PERIOD_MAX: Final = 16  # a shorter piece that is only repeated is as good as that piece
SAMPLES: Final = ("changeme", "replaceme", "example", "placeholder", "youradminkey", "yoursecret")


def weakness(secret: str) -> str | None:
    """What is wrong with it, in words that follow "it ..." and quote nothing of it; None: it will do."""
    if any(not "!" <= letter <= "~" for letter in secret):
        return "holds a space or a character that no header can carry"
    if len(secret) < LENGTH_MIN:
        return f"has {len(secret)} characters, expected at least {LENGTH_MIN}"
    if len(secret) > LENGTH_MAX:
        return f"has {len(secret)} characters, expected at most {LENGTH_MAX}"
    if len(set(secret)) < DIFFERENT_MIN:
        return f"has {len(set(secret))} different characters, expected at least {DIFFERENT_MIN}"
    if any(secret[period:] == secret[:-period] for period in range(1, PERIOD_MAX + 1)):
        return f"is a piece of at most {PERIOD_MAX} characters, repeated"
    letters = "".join(filter(str.isalnum, secret.casefold()))
    if any(sample in letters for sample in SAMPLES):
        return "is the text of a sample"
    return None
