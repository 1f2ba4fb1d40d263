"""`penstock convert litellm` as a person or a script runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli.main import main
from proxy.config.read import read

LITELLM = """\
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: sk-very-secret, rpm: 10}
  - model_name: claude
    litellm_params: {model: anthropic/claude-sonnet-4-5, rpm: 10}
  - model_name: nova
    litellm_params: {model: bedrock/amazon.nova-pro-v1, rpm: 10}
litellm_settings:
  fallbacks: [{gpt-4o: [claude]}]
"""
ROUTES = """\
# yaml-language-server: $schema=./routes.schema.json
#
# Converted by `penstock convert litellm` from config.yaml.
# `penstock check` finds what is wrong here, `penstock explain ROUTE` shows what a request would do.

providers:
  openai: {}
  anthropic: {}

routes:
  gpt-4o:
    tiers:
      - openai/gpt-4o
      - anthropic/claude-sonnet-4-5
  claude: {tiers: [anthropic/claude-sonnet-4-5]}
"""
NOTES = """\
config.yaml:3:44  model_list[0].litellm_params.api_key: a literal credential is never copied. Set OPENAI_API_KEY to it
config.yaml:3:69  model_list[0].litellm_params.rpm: not carried over: limits of a deployment have no place in a \
routes file (also on line 5)
config.yaml:6:5  model_list[2]: left out: Penstock does not speak to 'bedrock': its requests are signed with AWS credentials
config.yaml:6:5  model_list[2]: left out: 'nova' has no target left
"""


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_CONFIG", raising=False)
    Path("config.yaml").write_text(LITELLM)
    return CliRunner()


def run(runner: CliRunner, *args: str) -> Result:
    result = runner.invoke(main, ["convert", "litellm", *args])
    assert "very-secret" not in result.output
    return result


def test_the_file_goes_to_stdout_and_the_notes_to_stderr(runner: CliRunner) -> None:
    result = run(runner, "config.yaml")
    assert result.exit_code == 0
    assert result.stdout == ROUTES
    assert result.stderr == NOTES


def test_a_file_that_is_named_is_written_and_passes_the_check(runner: CliRunner) -> None:
    Path("routes.yaml").write_text("old")
    result = run(runner, "config.yaml", "-o", "routes.yaml")
    assert result.exit_code == 0
    assert result.stdout == "routes.yaml: 2 routes, 0 models, 2 providers. Next: penstock check --config routes.yaml\n"
    assert result.stderr == NOTES
    assert Path("routes.yaml").read_text() == ROUTES
    assert runner.invoke(main, ["check", "--config", "routes.yaml"]).exit_code == 0


def test_in_json(runner: CliRunner) -> None:
    result = run(runner, "config.yaml", "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    told = json.loads(result.stdout)
    assert told["yaml"] == ROUTES
    assert {key: value for key, value in told.items() if key not in {"yaml", "notes"}} == {
        "file": "config.yaml",
        "out": None,
        "routes": 2,
        "models": 0,
        "providers": 2,
    }
    assert [(one["line"], one["column"], one["path"]) for one in told["notes"]] == [
        (3, 44, "model_list[0].litellm_params.api_key"),
        (3, 69, "model_list[0].litellm_params.rpm"),
        (5, 58, "model_list[1].litellm_params.rpm"),
        (6, 5, "model_list[2]"),
        (6, 5, "model_list[2]"),
    ]
    written = json.loads(run(runner, "config.yaml", "--json", "-o", "routes.yaml").stdout)
    assert written == {**told, "out": "routes.yaml"}
    assert Path("routes.yaml").read_text() == ROUTES


def test_many_places_of_one_note_are_counted_out(runner: CliRunner) -> None:
    entry = "  - {{model_name: m{0}, litellm_params: {{model: openai/gpt-4o, rpm: 1}}}}\n"
    Path("config.yaml").write_text("model_list:\n" + "".join(entry.format(number) for number in range(12)))
    (line,) = run(runner, "config.yaml").stderr.splitlines()
    assert line.endswith("(also on lines 3, 4, 5, 6, 7, 8, 9, 10, ...)")


@pytest.mark.parametrize("args", [["nowhere.yaml"], ["."], ["nowhere.yaml", "--json"]])
def test_a_file_that_is_not_there_is_exit_code_2(runner: CliRunner, args: list[str]) -> None:
    result = run(runner, *args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == f"{args[0]}: no such file\n"


def test_the_file_itself_is_not_written_over(runner: CliRunner) -> None:
    result = run(runner, "config.yaml", "-o", "./config.yaml")
    assert result.exit_code == 2
    assert result.stderr == "config.yaml: is the file to convert. Name another with -o OUT\n"
    assert Path("config.yaml").read_text() == LITELLM


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"model_list: [}", "broken.yaml:1:14  not YAML: "),
        (b"a: 1\na: 2\n", "broken.yaml:2:1  a: this key is already set on line 1. Keep one\n"),
        (
            b'"\\e[31m": 1\n"\\e[31m": 2\n',
            'broken.yaml:2:1  ["\\x1b[31m"]: this key is already set on line 1. Keep one\n',
        ),
        (b"routes: {}\n", "broken.yaml:1:1  has no model_list. It is another file, its models stand in a file that it"),
        (b"a: 1\n\xff: 2\n", "broken.yaml:2:1  not UTF-8: save the file in that encoding\n"),
        (b"x" * (4 * 1024 * 1024 + 1), "broken.yaml:1:1  the file is larger than 4 MiB\n"),
    ],
)
def test_what_cannot_be_converted_is_exit_code_1(runner: CliRunner, raw: bytes, told: str) -> None:
    Path("broken.yaml").write_bytes(raw)
    result = run(runner, "broken.yaml", "-o", "routes.yaml")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(told)
    assert not Path("routes.yaml").exists()
    as_json = run(runner, "broken.yaml", "--json")
    assert as_json.exit_code == 1
    problems = json.loads(as_json.stdout)["problems"]
    assert len(problems) == len(result.stderr.splitlines())
    assert all(one["message"] in result.stderr for one in problems)


def test_a_file_that_cannot_be_written_is_exit_code_1(runner: CliRunner) -> None:
    result = run(runner, "config.yaml", "-o", "nowhere/routes.yaml")
    assert result.exit_code == 1
    assert result.stderr == "nowhere/routes.yaml: cannot be written: No such file or directory\n"


def test_a_byte_order_mark_and_windows_lines_do_no_harm(runner: CliRunner) -> None:
    Path("config.yaml").write_bytes(b"\xef\xbb\xbf" + LITELLM.replace("\n", "\r\n").encode())
    assert run(runner, "config.yaml").stdout == ROUTES


def test_it_is_the_same_every_time(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(LITELLM)
    program = "from proxy.cli.main import main; main(['convert', 'litellm', 'config.yaml'], prog_name='penstock')"
    texts = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            check=True,
        )
        for seed in ("1", "2")
    ]
    assert texts[0].stdout == texts[1].stdout == ROUTES.encode()
    assert texts[0].stderr == texts[1].stderr == NOTES.encode()
    assert read(ROUTES, "routes.yaml").problems == ()


def test_help_of_the_subcommand_has_an_example_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from proxy.cli.main import main\n"
        "main(['convert', 'litellm', '--help'], standalone_mode=False)\n"
        "print([name for name in ('pydantic', 'yaml', 'rich', 'aiohttp') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "penstock convert litellm config.yaml -o routes.yaml" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_another_proxy_is_told_which_there_are(runner: CliRunner) -> None:
    result = runner.invoke(main, ["convert", "portkey", "config.yaml"])
    assert result.exit_code == 2
    assert "No such command 'portkey'" in result.stderr
    assert "litellm" in runner.invoke(main, ["convert", "--help"]).stdout
