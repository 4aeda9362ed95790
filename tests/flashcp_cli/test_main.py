"""The command group: help everywhere, fast; errors in one line; exit statuses."""

import subprocess
import sys

import pytest
from click import Group
from click.testing import CliRunner

from flashcp_cli.main import COMMANDS, cli


def run(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "flashcp_cli", *words],
        capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


def every_command(command=cli, path=()):
    yield path, command
    if isinstance(command, Group):
        from click import Context

        context = Context(command)
        for name in command.list_commands(context):
            yield from every_command(command.get_command(context, name), (*path, name))


@pytest.mark.parametrize("path", [path for path, _ in every_command()], ids=" ".join)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_works_everywhere(path, flag):
    result = CliRunner().invoke(cli, [*path, flag], prog_name="flashcp")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Usage: flashcp")
    assert "\\b" not in result.output  # which keeps examples on lines of their own


def test_every_command_and_option_is_described():
    for path, command in every_command():
        assert command.help, path
        for option in command.params:
            if option.param_type_name == "option":
                assert option.help, (path, option.name)


def test_the_groups_lines_are_those_of_the_commands():
    output = " ".join(run("-h").stdout.split())
    for name, (_, line) in COMMANDS.items():
        assert f" {name} {line}" in output


@pytest.mark.parametrize(
    "words", [["-h"], ["plan", "-h"], ["trace", "show", "-h"], ["hardware", "-h"]], ids=" ".join
)
def test_help_imports_nothing_heavy(words):
    """What keeps `flashcp plan -h` under 0.3 s; time itself is measured in benchmarks/."""
    code = (
        "import sys\n"
        "from flashcp_cli.main import main\n"
        "try:\n"
        f"    main({words!r})\n"
        "finally:\n"
        "    heavy = {'numpy', 'pandas', 'pyarrow', 'numba', 'torch', 'rich', 'scipy'}\n"
        "    print('heavy:', sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.strip() == "heavy: []"


def test_planning_never_imports_torch():
    code = (
        "import sys\n"
        "from flashcp_cli.main import main\n"
        "try:\n"
        "    main(['plan', 'long-sft', '--packs', '2', '--processes', '1', '--json'])\n"
        "finally:\n"
        "    print('torch' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "False"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["plam"], "did you mean 'plan'?"),
        (["xyzzy"], "there are: plan, "),
        (["plan"], "Missing argument 'TRACE'"),
        (["plan", "papers", "--cpp", "8"], "--cpp"),
        (["trace", "shwo", "papers"], "shwo"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_2(words, named):
    done = run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback_and_keeps_the_status():
    done = run("plan", "nowhere.csv", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("flashcp: ")


@pytest.mark.parametrize("words", [[], ["trace"], ["hardware"]], ids=" ".join)
def test_a_group_alone_shows_its_help_and_exits_2(words):
    done = run(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: flashcp")
    assert done.stderr.count("\n") > 5


def test_a_closed_standard_output_is_no_crash():
    words = [sys.executable, "-m", "flashcp_cli", "hardware", "list"]
    done = subprocess.run(
        ["bash", "-c", " ".join(words) + " >&-"], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr


def test_version():
    assert run("--version").stdout.startswith("flashcp, version ")


@pytest.mark.parametrize("group", ["trace", "hardware"])
def test_groups_describe_their_commands_in_whole_sentences(group):
    output = run(group, "-h").stdout
    assert "..." not in output.split("Commands:")[1]


def test_a_number_beyond_all_bounds_is_a_number():
    for digits in ("9" * 30, "9" * 400):
        error = run("plan", "papers", "--cp", digits).stderr
        assert f"{digits[:30]}" in error
        assert "is not in 1..1024" in error
        assert len(error) < 200
