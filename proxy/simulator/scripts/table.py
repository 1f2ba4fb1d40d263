"""All scripts, and how a model's name chooses one."""

from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType
from typing import Final

from proxy.simulator.answers import errors
from proxy.simulator.answers.errors import Wording
from proxy.simulator.ask import Ask, Refused, bare, read
from proxy.simulator.delivery import normal, refusal
from proxy.simulator.intake import Interruption
from proxy.simulator.memory import Memory
from proxy.simulator.reader import Request
from proxy.simulator.scripts import before, during, form, within
from proxy.simulator.scripts.script import BadArgument, Cue, Script
from proxy.simulator.wire import JSON, Ending, Steps, head, length
from proxy.terms import Api

SCRIPTS: Final[Mapping[str, Script]] = MappingProxyType(
    {script.name: script for script in chain(during.SCRIPTS, before.SCRIPTS, within.SCRIPTS, form.SCRIPTS)}
)


def split(model: str) -> tuple[str, tuple[str, ...]]:
    """`provider/NAME:ARG:ARG` into name and arguments; the slashes of an argument (a URL) are its own."""
    path, _, args = model.partition(":")
    return path.rpartition("/")[2], tuple(args.split(":")) if args else ()


def perform(api: Api, request: Request, memory: Memory) -> Steps:
    """The answer to a request of this API, as its model's name wants it."""
    try:
        ask = read(api, request)
    except Refused as refused:
        return error(api, refused.status, refused.message, refused.param)
    return play(ask, memory)


def play(ask: Ask, memory: Memory) -> Steps:
    """What the script that the model's name chooses makes of it; the normal answer where there is none of that name."""
    name, args = split(ask.model)
    script = SCRIPTS.get(name)
    if script is None:
        return normal(ask)
    steps = script.play_for(ask)(Cue(ask, args, memory))
    try:
        first = next(steps, Ending.DONE)
    except BadArgument as problem:
        wording = _invalid(f"{ask.model}: {problem}. It is written {script.usage}.")
        return refusal(ask, 400, wording, param="model")
    return chain((first,), steps)


def interruption(api: Api, request: Request, model: str, memory: Memory) -> Interruption | None:
    """What the script of this name does while the body still comes; an argument that cannot be read is told later."""
    name, args = split(model)
    script = SCRIPTS.get(name)
    if script is None or script.interrupts is None:
        return None
    try:
        return script.interrupts(Cue(bare(api, request, model), args, memory))
    except BadArgument:
        return None


def error(api: Api | None, status: int, message: str, param: str | None = None) -> Steps:
    """An error of the simulator's own, in the form of this API; None: of OpenAI's."""
    body = errors.body(api, _invalid(message), param)
    return iter((head(status, JSON, length(body)) + body,))


def _invalid(message: str) -> Wording:
    return Wording("invalid_request_error", None, message, "invalid_request_error")
