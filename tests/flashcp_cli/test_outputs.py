"""Every command refuses at once, in one line, an output that is no place for a file."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flashcp_cli.main import main

OUTPUTS = [
    (["plan", "papers"], "--out"),
    (["plan", "papers"], "--timeline"),
    (["simulate", "papers"], "--out"),
    (["simulate", "papers"], "--html"),
    (["simulate", "papers"], "--timeline"),
    (["trace", "make", "papers"], "--out"),
    (["hardware", "show", "h100-sxm"], "--html"),
    (["run", "papers", "--device", "cpu"], "--results"),
    (["run", "papers", "--device", "cpu"], "--timeline"),
    (["calibrate", "--device", "cpu"], "--out"),
]


@pytest.fixture
def refused(tmp_path, monkeypatch, capfd):
    """Run a command that must end in one line with status 2 and change nothing here."""
    monkeypatch.chdir(tmp_path)

    def here():
        # Not when each was last read: looking at where a link leads counts as reading it.
        return {
            name: (stat.st_ino, stat.st_mode, stat.st_size, stat.st_mtime_ns)
            for name in Path().iterdir()
            for stat in [os.lstat(name)]
        }

    def run(*words):
        before = here()
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert stop.value.code == 2, err
        assert out == ""
        assert re.fullmatch(r"flashcp: [^\n]+\n", err)
        assert here() == before
        return err

    return run


@pytest.mark.parametrize(("words", "option"), OUTPUTS)
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_refused_before_any_work(refused, words, option, linked):
    os.mkfifo("pipe.parquet")
    name = "pipe.parquet"
    if linked:
        name = "link.parquet"
        Path(name).symlink_to("pipe.parquet")
    err = refused(*words, option, name)
    assert f"{name} is a pipe, not a file; name a file" in err
    assert option in err


def test_a_dash_is_refused(refused):
    assert "- is not taken for standard output; name a file" in refused(
        "plan", "papers", "--out", "-"
    )


def test_what_is_kept_while_a_command_runs_is_no_pipe_either(refused):
    os.mkfifo("p.json.partial")
    assert "p.json.partial is a pipe" in refused("calibrate", "--device", "cpu", "--out", "p.json")
    os.mkfifo("rows.partial")
    assert "rows.partial is not a folder" in refused("simulate", "papers", "--out", "rows")


def test_plots_go_into_a_folder_only(refused, tmp_path):
    (tmp_path / "plots").write_text("")
    assert "Directory 'plots' is a file" in refused("simulate", "papers", "--plots", "plots")


@pytest.mark.parametrize("name", ["/dev/stdout", "report.txt"])
def test_where_the_report_goes_is_no_output(tmp_path, name):
    report = tmp_path / "report.txt"
    with report.open("w") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "flashcp_cli", "plan", "papers", "--out", name],
            stdout=stream, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"{name} is where this command prints to; name another file" in done.stderr
    assert list(tmp_path.iterdir()) == [report]


def test_a_broken_link_into_no_folder_names_the_folder(refused, tmp_path):
    (tmp_path / "link").symlink_to("gone/plan.parquet")
    err = refused("plan", "papers", "--out", "link")
    assert "gone is not a folder; create it first" in err
