"""What no module of Penstock does, read from its source."""

import ast
import importlib
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import proxy

ROOT = Path(proxy.__file__).parent
MODULES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}

NO_BUILTINS = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
NO_MODULES = {
    "pickle", "cPickle", "dill", "marshal", "shelve", "subprocess", "ctypes", "cffi", "jinja2", "mako", "code",
    "codeop", "pty",
    "xmlrpc", "telnetlib", "ftplib", "runpy",
}  # fmt: skip
NO_CALLS = {
    ("yaml", "load"), ("yaml", "load_all"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("os", "system"),
    ("os", "popen"),
    ("os", "execv"), ("os", "spawnv"), ("tempfile", "mktemp"), ("ssl", "_create_unverified_context"), ("random",
    "seed"),
    ("asyncio", "create_subprocess_exec"), ("asyncio", "create_subprocess_shell"), ("importlib", "import_module"),
}  # fmt: skip
EXECUTES = {
    "execute",
    "executemany",
    "executescript",
    "fetch",
    "fetchrow",
    "fetchval",
    "prepare",
    "cursor",
    "copy_records_to_table",
}
SQL = re.compile(
    r"\s*(?:select|insert|update|delete|create|drop|alter|with|pragma|begin|commit|attach)\b", re.IGNORECASE
)


def _nodes(modules: Mapping[str, ast.Module] = MODULES) -> Iterator[tuple[str, ast.AST]]:
    for name, tree in modules.items():
        for node in ast.walk(tree):
            yield f"proxy/{name}:{getattr(node, 'lineno', 0)}", node


def test_the_walk_finds_the_modules() -> None:
    assert len(MODULES) > 200
    assert sum(isinstance(node, ast.Call) for _, node in _nodes()) > 2000


def _forbidden(modules: Mapping[str, ast.Module]) -> list[str]:
    found: list[str] = []
    for place, node in _nodes(modules):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in NO_BUILTINS:
                found.append(f"{place} {name}()")
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name)) if (module, name) in NO_CALLS:
                found.append(f"{place} {module}.{name}()")
            case ast.Import(names=names):
                found += [f"{place} import {one.name}" for one in names if one.name.partition(".")[0] in NO_MODULES]
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in NO_MODULES:
                found.append(f"{place} from {module}")
    return found


def test_s18_nothing_is_evaluated_unpickled_or_started() -> None:
    """But for what the supervisor starts, which is itself, by a list of arguments. `re.compile` is no builtin."""
    (started,) = _forbidden(MODULES)
    assert re.fullmatch(r"proxy/server/workers\.py:\d+ asyncio\.create_subprocess_exec\(\)", started)


@pytest.mark.parametrize("source", ["eval('1')", "import pickle", "from subprocess import run", "yaml.load(x)"])
def test_s18_the_lint_finds_what_it_looks_for(source: str) -> None:
    assert len(_forbidden({"canary.py": ast.parse(source)})) == 1


def _is_constant(node: ast.AST, constants: set[str]) -> bool:
    """Whether a statement is put together from constants of the module alone."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name in constants
        case ast.Attribute(attr=name):
            return name.isupper() or name in constants
        case ast.JoinedStr(values=values):
            return all(_is_constant(value, constants) for value in values)
        case ast.FormattedValue(value=value):
            return _is_constant(value, constants)
        case ast.BinOp(left=left, right=right):
            return _is_constant(left, constants) and _is_constant(right, constants)
        case ast.IfExp(body=body, orelse=orelse):
            return _is_constant(body, constants) and _is_constant(orelse, constants)
        case ast.Subscript(value=value):  # of a constant table of statements
            return _is_constant(value, constants)
    return False


def _constants(tree: ast.Module) -> set[str]:
    """Names that are bound once, at the module's top."""
    names = set()
    for node in tree.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                names.add(name)
    return names


def test_s17_no_statement_is_put_together_from_values() -> None:
    """SQL outside of module constants is one literal; what is formatted into a constant is a constant of the module."""
    found = []
    for name, tree in MODULES.items():
        if not name.startswith("stores/"):
            continue
        constants = _constants(tree)
        inner = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        }
        for node in ast.walk(tree):
            if id(node) not in inner or not isinstance(node, ast.JoinedStr | ast.BinOp):
                continue
            first = next((one.value for one in ast.walk(node) if isinstance(one, ast.Constant)), None)
            if isinstance(first, str) and SQL.match(first) and not _is_constant(node, constants):
                found.append(f"proxy/{name}:{node.lineno} {ast.unparse(node)[:120]}")
    assert found == []


def test_s17_sql_is_in_the_stores_alone() -> None:
    calls = [
        place
        for place, node in _nodes()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in EXECUTES
        and node.args
        and isinstance(node.args[0], ast.Constant | ast.JoinedStr)
        # `penstock doctor` looks into stores that may be none of ours yet, by constants alone.
        and not place.startswith(("proxy/stores/", "proxy/cli/doctor_facts.py"))
    ]
    assert calls == []


# S56: expressions.

# What is read by these is written by whoever configures or runs Penstock, not by who calls it.
OPERATORS = ("config/", "cli/", "simulator/", "stores/migrations.py", "server/")
SIZE = 16 * 1024  # what goes back from each place takes 0.2 s for this, and more than 10 minutes for 1 MiB
SIZE_S = 0.05
# What is searched is JSON that has been parsed: no string in it is open, and that is what would be slow.
PARSED = {"core/splice.py:_STRUCTURE"}


SEARCHES = {"search", "sub", "finditer", "findall", "split"}


def _searched(tree: ast.Module) -> set[str]:
    """The names in a module that are searched for: the others are matched at one place, once."""
    return {
        node.value.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in SEARCHES and isinstance(node.value, ast.Name)
    }


def _expressions() -> Iterator[tuple[str, "re.Pattern[str] | re.Pattern[bytes]"]]:
    for name in MODULES:
        if name.startswith(OPERATORS) or name.endswith("__init__.py"):
            continue
        module = importlib.import_module(f"proxy.{name.removesuffix('.py').replace('/', '.')}")
        for attribute, value in vars(module).items():
            if isinstance(value, re.Pattern) and f"{name}:{attribute}" not in PARSED:
                yield f"{name}:{attribute}", value


EXPRESSIONS = dict(_expressions())
HOSTILE = [
    "a", "0", "-", " ", "/", "%41", "(", '"', "'", "\\", '\\"', ";", ",", ", ", "a,", "sk-", "sk-a*", "Bearer ",
    "<", "<a", ";a=",
    ';a="', ";a=\\", "=", '"model"', '"model" ', '"model":"\\', "1h", "1m1", "a b", "/v1/", "/v1/a", "/models/",
    "e+", "{", "[", "\n", "\r",
    "\r\n", "r=0;", "missing scope", "invalid ", "rate", "model ", "a.", "..", "'a", "does not",
    "maximum context ", "event: ",
]  # fmt: skip


def test_s56_there_are_expressions_to_look_at() -> None:
    assert len(EXPRESSIONS) > 30


@pytest.mark.parametrize("name", sorted(EXPRESSIONS))
def test_s56_expressions_take_linear_time(name: str) -> None:
    """Of what could make them go back again and again."""
    pattern = EXPRESSIONS[name]
    module, _, attribute = name.partition(":")
    is_searched = attribute in _searched(MODULES[module])
    slow = []
    for unit in HOSTILE:
        for before, after in (("", "\x00"), ("/v1/models/", "?")):
            took_s = _time(pattern, is_searched, before + unit * (SIZE // len(unit)) + after)
            if took_s > SIZE_S:
                slow.append((unit, took_s))
                break
    assert slow == []


def _time(pattern: "re.Pattern[str] | re.Pattern[bytes]", is_searched: bool, text: str) -> float:
    subject = text if isinstance(pattern.pattern, str) else text.encode()
    began = time.process_time()
    if is_searched:
        pattern.sub(subject[:0], subject)  # type: ignore[arg-type] # both of its own kind
    pattern.fullmatch(subject)  # type: ignore[arg-type]
    return time.process_time() - began
