"""From references to a provider's credentials: the environment, and what is sealed.

`api_key` names one reference or several; all that are there are used, in the file's order. Without it a provider has the
one credential that is found first: in the variables of its row in the catalogue, then sealed under the provider's own id,
then sealed under the name of one of those variables.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.core.credential import Credential, Vault

ENV: Final = "env:"
SEALED: Final = "sealed:"
# What start-up prints for clients to set; in the shell that Penstock is started from it is nobody's credential.
_NO_CREDENTIAL: Final = frozenset({"", "anything"})


@dataclass(frozen=True, slots=True)
class Found:
    """What references led to.

    Shapes: ``missing`` names those that led nowhere as messages do (``NAME``, ``sealed:NAME``), ``unusable`` says in words
    why those that led somewhere cannot be used. ``variables``: those of the environment that were looked at.
    """

    credentials: tuple[Credential, ...]
    missing: tuple[str, ...]
    unusable: tuple[str, ...]
    variables: tuple[str, ...]


def credentials_of(references: Sequence[str], environ: Mapping[str, str], vault: Vault) -> Found:
    """What all of several references lead to, in their order, each value once."""
    credentials: dict[str, Credential] = {}
    missing: list[str] = []
    unusable: list[str] = []
    for reference in references:
        found = _at(reference, environ, vault)
        if isinstance(found, Credential):
            credentials.setdefault(found.value, found)
        elif found is None:
            missing.append(reference.removeprefix(ENV))
        else:
            unusable.append(found)
    return Found(tuple(credentials.values()), tuple(missing), tuple(unusable), _variables(references))


def usual_credential(provider_id: str, key_vars: Sequence[str], environ: Mapping[str, str], vault: Vault) -> Found:
    """The one credential of a provider whose entry names none."""
    references = [f"{ENV}{name}" for name in key_vars] + [f"{SEALED}{name}" for name in (provider_id, *key_vars)]
    found = credentials_of(references, environ, vault)
    if found.credentials:
        return Found(found.credentials[:1], (), (), tuple(key_vars))
    return Found((), tuple(key_vars[:1]), found.unusable[:1], tuple(key_vars))


def _at(reference: str, environ: Mapping[str, str], vault: Vault) -> Credential | str | None:
    """The credential; None where there is none; or why it cannot be used."""
    if reference.startswith(SEALED):
        name = reference.removeprefix(SEALED)
        if name in vault.unopened:
            return f"{reference} cannot be opened: {vault.unopened[name]}"
        value = vault.values.get(name)
    else:
        value = environ.get(reference.removeprefix(ENV), "").strip()
        value = None if value in _NO_CREDENTIAL else value
    if value is None:
        return None
    if not is_sendable(value):
        return f"{reference.removeprefix(ENV)} holds a character that no header can carry"
    return Credential(value, reference)


def is_sendable(value: str) -> bool:
    return value.isascii() and value.isprintable() and " " not in value and bool(value)


def _variables(references: Iterable[str]) -> tuple[str, ...]:
    return tuple(one.removeprefix(ENV) for one in references if one.startswith(ENV))
