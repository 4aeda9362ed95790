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
from flashcp_cli.trace import trace
from flashcp_cli.trace_options import trace_options, traces_options
from tests.traces.trace_files import csv_text, write
from traces import (
    Trace,
    TraceError,
    bundled_names,
    describe,
    generate,
    generator_names,
    load,
    save,
)
from traces.generators import MAX_DOCUMENTS
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
        (["show", "wlb-llm", "--documents", "0"], ["0", "1..134217728"]),
        (["show", "wlb-llm", "--documents", "2147483647"], ["2147483647", "1..134217728"]),
        (["show", "papers", "--documents", "5"], ["--documents 5", "bundled trace"]),
        (["show", "papers", "--format", "nosuch"], ["'nosuch'", "csv, tsv"]),
        (["show", "papers", "--format", "arow"], ["'arow'", "did you mean 'arrow'"]),
        (["show", "papers", "--format", "csv"], ["--format csv", "for a file"]),
        (["show", "papers", "--column", "x"], ["--column x", "for a file"]),
        (["show", "papers", "--tokenizer", "none.json"], ["--tokenizer none.json", "for a file"]),
        (["show", "papers", "--bytes-per-token", "nan"], ["--bytes-per-token nan", "for a file"]),
        (["show", "papers", "--seed", "3"], ["--seed 3", "a generator or a mixture", "bundled"]),
        (["show", "good.csv", "--seed", "3"], ["--seed 3", "good.csv is a file"]),
        (["show", "good.csv", "--bytes-per-token", "nan"], ["nan", "between 0.1 and 100"]),
        (["show", "code=1e-320,papers=1e308"], ["of code is nothing beside"]),
        (["show", "x" * 300], ["no file 'xxx"]),
        (["show", "code=1," + "x" * 300 + "=1"], ["no file 'xxx"]),
        (["make", "good.csv", "--out", "good.csv"], ["good.csv", "read from", "--out"]),
        (["make", "code=1,good.csv=1", "--out", "good.csv"], ["good.csv", "read from", "--out"]),
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


def test_a_trace_is_not_written_over_itself_under_another_name(run, tmp_path):
    path = tmp_path / "a.parquet"
    save(Trace("t", [5, 6]), path)
    link = tmp_path / "link.parquet"
    link.symlink_to(path)
    before = path.read_bytes()
    for source, out in ((path, path), (path, link), (link, path)):
        status, _, err = run("trace", "make", source, "--out", out)
        assert status == 2
        assert f"{out} is what TRACE is read from" in err
    assert path.read_bytes() == before
    assert link.is_symlink()


def test_an_option_for_one_of_several_traces_is_for_that_one():
    seen = []

    @click.command()
    @traces_options
    def command(sources):
        seen.extend(source.load() for source in sources)

    runner = CliRunner()
    arguments = ["papers", "fixed:8", "--documents", "3"]
    runner.invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    assert [trace.documents for trace in seen] == [3362, 3]
    with pytest.raises(TraceError, match="--column x is for a file, and papers is a bundled"):
        runner.invoke(
            command, ["papers", "fixed:8", "--column", "x"], standalone_mode=False,
            catch_exceptions=False,
        )  # fmt: skip


@pytest.mark.parametrize("columns", ["20", "60", "200"])
def test_no_number_is_cut_in_a_narrow_terminal(run, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    status, out, _ = run("trace", "show", "books")
    assert status == 0
    assert "…" not in out
    assert out.startswith("books: 1,428 documents, 181,879,740 tokens, 127,367 on average\n")
    found = describe(load("books"))
    for number in (found.shortest, *found.quantiles.values(), found.longest):
        assert f" {number:,} " in out
    for bucket in found.buckets:
        assert re.search(
            rf" {bucket.up_to:,} +{bucket.document_share:.2%} .* {bucket.work_share:.2%}", out
        )


def test_the_most_documents_are_the_generators_own():
    most = next(p.type.most for p in trace.commands["show"].params if p.name == "documents")
    assert most == MAX_DOCUMENTS


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
