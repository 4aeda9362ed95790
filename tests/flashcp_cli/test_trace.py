import json
import re
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flashcp_cli.main import main
from flashcp_cli.trace_options import trace_options
from tests.traces.trace_files import csv_text, write
from traces import bundled_names, describe, generate, generator_names, load
from traces.packers import PACKERS
from traces.readers import FORMATS


@pytest.fixture
def run(capsys):
    """Run the command line; return its exit status, standard output and standard error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return run


def test_show_tells_count_tokens_quantiles_and_shares(run):
    status, out, err = run("trace", "show", "papers")
    assert (status, err) == (0, "")
    assert out.startswith("papers: 3,362 documents, 68,247,189 tokens, 20,300 on average\n")
    longest = describe(load("papers")).buckets[-1]
    last = [line for line in out.splitlines() if "262,144" in line]
    assert len(last) == 1
    for share in (longest.document_share, longest.token_share, longest.work_share):
        assert f"{share:.2%}" in last[0]
    assert "█" in out
    assert max(map(len, out.splitlines())) <= 80


def test_show_prints_one_json_document(run):
    status, out, err = run("trace", "show", "papers", "--json")
    shown = json.loads(out)
    found = describe(load("papers"))
    assert (status, err) == (0, "")
    assert shown["trace"] == "papers"
    assert shown["fingerprint"] == load("papers").fingerprint
    assert shown["documents"] == 3362
    assert shown["quantiles"]["0.5"] == found.quantiles[0.5]
    assert sum(bucket["work_share"] for bucket in shown["buckets"]) == pytest.approx(1)


def test_show_reads_files_as_told(run, tmp_path):
    path = tmp_path / "lengths.txt"
    path.write_text("words,bytes\n5,50\n6,60\n")
    status, out, _ = run("trace", "show", path, "--format", "csv", "--column", "bytes", "--json")
    assert status == 0
    assert json.loads(out)["tokens"] == 110


def test_show_says_that_lengths_are_estimated(run, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "12345678"}\n')
    _, out, _ = run("trace", "show", path, "--bytes-per-token", "4")
    assert "lengths estimated at 4 bytes a token" in out


def test_make_writes_what_a_generator_gives(run, tmp_path):
    path = tmp_path / "x.parquet"
    status, out, _ = run(
        "trace", "make", "wlb-llm", "--documents", "2k", "--seed", "1", "--out", path
    )
    assert status == 0
    expected = generate("wlb-llm", documents=2048, seed=1)
    assert load(path) == expected
    assert out == f"{path}: 2,048 documents, {expected.tokens:,} tokens\n"


def test_make_converts_and_mixes(run, tmp_path):
    source = write(tmp_path / "a.csv", [5, 6, 7])
    path = tmp_path / "x.parquet"
    assert run("trace", "make", source, "--out", path)[0] == 0
    assert load(path).lengths.tolist() == [5, 6, 7]
    status, out, _ = run("trace", "make", "papers=0.5,fixed:1k=0.5", "--out", path, "--json")
    assert status == 0
    made = json.loads(out)
    assert made["fingerprint"] == load(path).fingerprint
    short = load(path).lengths == 1024
    assert load(path).lengths[short].sum() / made["tokens"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "paper"], ["'paper'", "did you mean 'papers'"]),
        (["show", "none.parquet"], ["'none.parquet'"]),
        (["show", "bad.csv"], ["bad.csv", "line 3", "length 0"]),
        (["show", "good.csv", "--column", "lenght"], ["'lenght'", "did you mean 'length'"]),
        (["show", "good.csv", "--format", "cvs"], ["'cvs'", "did you mean 'csv'"]),
        (["show", "wlb-llm", "--documents", "0"], ["0", "1..2147483647"]),
        (["show", "wlb-llm", "--documents", "many"], ["'many'"]),
        (["show", "wlb-llm", "--seed", "x"], ["'x'"]),
        (["show", "lognormal:sigma=-1"], ["sigma", "'-1'"]),
        (["show", "code=0,papers=1"], ["weight 0.0"]),
        (["show", "text.jsonl"], ["--tokenizer", "--bytes-per-token"]),
        (["show", "text.jsonl", "--bytes-per-token", "-1"], ["-1"]),
        (["show", "."], ["is a folder"]),
        (["show"], ["TRACE"]),
        (["make", "wlb-llm"], ["--out"]),
        (["make", "wlb-llm", "--out", "x.csv"], ["x.csv", ".parquet"]),
        (["make", "wlb-llm", "--out", "none/x.parquet"], ["none"]),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("id,length\n0,5\n1,0\n")
    (tmp_path / "good.csv").write_text(csv_text([5]))
    (tmp_path / "text.jsonl").write_text('{"text": "a"}\n')
    status, out, err = run("trace", *arguments)
    assert status == 2
    assert out == ""
    assert re.fullmatch(r"flashcp: [^\n]+\n", err)
    for word in words:
        assert word in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "good.csv", "text.jsonl"]


def test_a_full_disk_is_exit_1_and_leaves_nothing(run, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", full)
    status, _, err = run("trace", "make", "papers", "--out", tmp_path / "x.parquet")
    assert status == 1
    assert "No space left on device" in err
    assert not list(tmp_path.iterdir())


def test_help_names_every_bundled_trace_generator_and_format(run):
    _, group, _ = run("trace", "-h")
    for name in (*bundled_names(), *generator_names()):
        assert name in group
    _, show, _ = run("trace", "show", "-h")
    for name in FORMATS:
        assert name in show


def test_the_trace_page_names_every_bundled_trace_generator_format_and_packer():
    page = (Path(__file__).parents[2] / "docs" / "traces.md").read_text(encoding="utf-8")
    for name in (*bundled_names(), *generator_names(), *FORMATS, *PACKERS):
        assert f"`{name}`" in page


def test_a_plan_given_as_a_trace_is_told_apart(run, tmp_path):
    path = tmp_path / "plan.parquet"
    assert run("plan", "fixed:8k", "--packs", "1", "--cp", "2", "--out", path)[0] == 0
    status, _, err = run("trace", "show", path)
    assert status == 2
    assert "plan.parquet is a flashcp plan, not a trace" in err


def test_help_needs_neither_numpy_nor_rich():
    script = (
        "import sys; from flashcp_cli.main import cli; "
        "cli(['trace', 'show', '-h'], standalone_mode=False); "
        "sys.exit(any(name in sys.modules for name in ('numpy', 'rich', 'pyarrow', 'numba')))"
    )
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, check=True)
    assert time.perf_counter() - start < 3  # generous: the bound is 0.3 s on an idle machine


def test_a_command_with_trace_options_receives_one_source():
    seen = []

    @click.command()
    @trace_options
    @click.option("--cp", type=int)
    def command(source, cp):
        seen.append((source, cp))

    CliRunner().invoke(command, ["fixed:8", "--documents", "3", "--cp", "2"], standalone_mode=False)
    ((source, cp),) = seen
    assert cp == 2
    assert source.load().lengths.tolist() == [8, 8, 8]
