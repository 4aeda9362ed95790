"""`flashcp plan` from end to end: tables, JSON, saved plans, bad input, interrupts."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from flashcp.plan_file import load_plans
from flashcp.search.weights import BALANCES
from flashcp.strategies import NAMES
from flashcp_cli import plan as command
from flashcp_cli import setting_options
from flashcp_cli.main import cli
from traces.packing import PACKERS

SMALL = ["--packs", "3", "--processes", "1", "--context", "16k", "--cp", "4"]


def run(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "flashcp_cli", "plan", *map(str, words)],
        capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


def invoke(*words):
    return CliRunner().invoke(cli, ["plan", *map(str, words)], prog_name="flashcp")


def test_names_in_help_are_those_of_the_registry():
    assert command.STRATEGIES == NAMES
    assert command.PACKERS == PACKERS
    assert setting_options.BALANCES == BALANCES


def test_the_table_has_every_strategy_and_says_where_times_come_from():
    result = invoke("long-sft", *SMALL)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    for name in NAMES:
        assert sum(line.strip().startswith(f"{name} ") for line in lines) == 2, name
    assert "reported" in result.output
    assert "rank 3" in result.output
    assert max(map(len, lines)) <= 110


def test_json_is_one_document_and_nothing_else():
    result = invoke("long-sft", *SMALL, "--json")
    document = json.loads(result.output)
    assert list(document["strategies"]) == list(NAMES)
    for outcome in document["strategies"].values():
        parts = ("forward_us", "backward_us", "exchange_us", "copies_us")
        assert sum(outcome[part] for part in parts) == pytest.approx(outcome["total_us"])
        assert outcome["over_bound"] >= 1
        assert outcome["imbalance"]["worst"] >= outcome["imbalance"]["mean"] >= 1
    assert document["packing"]["packs"] == 3
    for outcome in document["strategies"].values():
        assert outcome["sources"]["backward"] == "reported"


def test_auto_is_never_slower_than_another_strategy():
    document = json.loads(invoke("code", *SMALL, "--json").output)
    totals = {name: o["total_us"] for name, o in document["strategies"].items()}
    assert totals["auto"] == min(totals.values())


def test_a_saved_plan_holds_every_pack_and_leads_back_to_the_trace(tmp_path):
    out = tmp_path / "plan.parquet"
    result = invoke("papers", *SMALL, "--strategy", "flashcp", "--out", out)
    assert result.exit_code == 0, result.output
    file = load_plans(out)
    assert (len(file.plans), file.header.cp, file.header.strategy) == (3, 4, "flashcp")
    assert all(plan.context_tokens == 16384 for plan in file.plans)
    from traces import load

    trace = load("papers")
    assert file.header.trace_fingerprint == trace.fingerprint
    for plan, rows, offsets in zip(file.plans, file.rows, file.offsets, strict=True):
        assert (plan.lengths + offsets <= trace.lengths[rows]).all()


def test_processes_do_not_change_the_result():
    outcomes = []
    for processes in ("1", "2"):
        words = ["code", "--packs", "130", "--context", "16k", "--cp", "4", "--json"]
        document = json.loads(invoke(*words, "--processes", processes).output)
        for outcome in document["strategies"].values():
            outcome.pop("planning_us")
        outcomes.append(document)
    assert outcomes[0] == outcomes[1]


def test_compare_narrows_the_table_but_keeps_the_chosen_strategy():
    document = json.loads(
        invoke("papers", *SMALL, "--json", "--compare", "ring", "--strategy", "flashcp").output
    )
    assert list(document["strategies"]) == ["ring", "flashcp"]
    assert document["strategies"]["flashcp"]["speedup_over"] == {}


def test_other_heads_make_another_model_without_linear_layers():
    document = json.loads(invoke("papers", *SMALL, "--json", "--kv-heads", "32").output)
    assert document["model"]["kv_heads"] == 32
    assert document["linear_us"] is None


def test_the_timeline_is_a_chrome_trace_of_all_ranks(tmp_path):
    out = tmp_path / "timeline.json"
    assert invoke("papers", *SMALL, "--timeline", out).exit_code == 0
    events = json.loads(out.read_text())["traceEvents"]
    assert {event["pid"] for event in events} == {0, 1, 2, 3}


def test_a_trace_of_one_token_is_planned(tmp_path):
    (tmp_path / "one.csv").write_text("length\n1\n")
    result = invoke(tmp_path / "one.csv", "--cp", "8", "--processes", "1")
    assert result.exit_code == 0, result.output


def test_the_picture_says_how_the_plans_kv_travels(tmp_path):
    words = ["code", "--cp", "32", "--ranks-per-node", "8", "--packs", "1", "--compare", "auto"]
    words += ["--balance", "work", "--processes", "1", "--out", tmp_path / "p.parquet"]
    result = invoke(*words)
    plan = load_plans(tmp_path / "p.parquet").plans[0]
    assert plan.bundled
    assert plan.head_chunks > 1
    said = f"{plan.exchange}, in {plan.head_chunks} parts, bundled, beside attention"
    assert f"Pack 0 by auto: {said}" in result.output.splitlines()
    other = invoke(*words[:-2], "--strategy", "per-doc")
    assert "Pack 0 by per-doc: all-gather" in other.output.splitlines()


def test_no_terminal_means_no_colour_codes():
    done = run("papers", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


BAD = [
    (["nowhere.csv"], "nowhere.csv"),
    (["paper"], "'papers'"),
    (["papers", "--cp", "0"], "0 is not in 1..1024"),
    (["papers", "--cp", "1025"], "1025 is not in 1..1024"),
    (["papers", "--balance", "tokens"], "'tokens'"),
    (["papers", "--cp", "eight"], "'eight' is not a whole number"),
    (["papers", "--cp", "2.5"], "'2.5' is not a whole number"),
    (["papers", "--cp", "-1"], "-1"),
    (["papers", "--cp", "nan"], "'nan'"),
    (["papers", "--context", "0"], "0 is not in"),
    (["papers", "--context", "128q"], "'128q'"),
    (["papers", "--context", "1g"], "1g"),
    (["papers", "--pack-by", "concatt"], "did you mean 'concat'?"),
    (["papers", "--packs", "0"], "0 is not in"),
    (["papers", "--seed", "x"], "'x'"),
    (["papers", "--strategy", "per-docs"], "did you mean 'per-doc'?"),
    (["papers", "--compare", "ring,ring"], "twice"),
    (["papers", "--compare", "ring,,auto"], "empty place"),
    (["papers", "--compare", "ring,rang"], "did you mean 'ring'?"),
    (["papers", "--model", ""], "model '' is neither a preset"),
    (["papers", "--model", "llama3-9b"], "llama3-8b"),
    (["papers", "--model", "nowhere/config.json"], "nowhere/config.json"),
    (["papers", "--kv-heads", "7"], "7 KV heads do not divide"),
    (["papers", "--q-heads", "0"], "0 is not in"),
    (["papers", "--hardware", "h100"], "h100-sxm"),
    (["papers", "--hardware", "nowhere.json"], "nowhere.json"),
    (["papers", "--cp", "8", "--ranks-per-node", "3"], "3 ranks per node do not divide 8"),
    (["papers", "--cp", "8", "--ranks-per-node", "16"], "16 ranks per node do not divide 8"),
    (["papers", "--copies", "none"], "'none'"),
    (["papers", "--out", "nowhere/plan.parquet"], "nowhere is not a folder"),
    (["papers", "--out", "."], "is a directory"),
    (["papers", "--out", ""], "'' is no path; name a file"),
    (["papers", "--out", "same", "--timeline", "same"], "already --out's"),
    (["papers", "--timeline", "nowhere/t.json"], "nowhere is not a folder"),
    (["papers", "--picture", "100", "--packs", "3"], "100 is no pack"),
    (["papers", "--processes", "0"], "0 is not in"),
]


@pytest.mark.parametrize(("words", "named"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_line_and_exit_2(words, named, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    from flashcp_cli.main import main

    with pytest.raises(SystemExit) as stop:
        main(["plan", *words])
    captured = capfd.readouterr()
    assert stop.value.code == 2, captured.err
    assert captured.out == ""
    assert named in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def start_long(out, *words):
    """Start a command that takes long and has two workers."""
    return subprocess.Popen(
        [sys.executable, "-m", "flashcp_cli", "plan", "code", "--out", str(out), "--processes", "2",
         *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "status", "line"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped by SIGTERM")],
)
@pytest.mark.parametrize("send", [os.kill, os.killpg])  # a terminal's Ctrl-C is to the group
def test_an_interrupt_ends_in_one_line_with_nothing_half_written(
    tmp_path, number, status, line, send
):
    process = start_long(tmp_path / "p")
    time.sleep(3)
    send(process.pid, number)
    out, err = process.communicate(timeout=60)  # whose pipes the workers hold, too
    assert process.returncode == status, err
    # click ends the line on which the terminal shows ^C
    assert err.removeprefix("\n") == f"flashcp: {line}; nothing was left half-written\n"
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pause", [0.02, 0.1, 0.3])
def test_impatience_is_no_traceback(tmp_path, pause):
    process = start_long(tmp_path / "p", "--plan-effort", "20")
    time.sleep(4)
    for _ in range(4):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        time.sleep(pause)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "\nflashcp: interrupted; nothing was left half-written\n"


def test_workers_end_with_the_process_that_started_them(tmp_path):
    process = start_long(tmp_path / "p", "--plan-effort", "20")
    deadline = time.monotonic() + 60
    while len(children(process.pid)) < 3:  # two workers, and what tracks their semaphores
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.communicate(timeout=60)  # ends once nobody has its pipes any more
    assert list(tmp_path.iterdir()) == []


def children(pid):
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.split()


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m flashcp_cli plan papers {' '.join(SMALL)} | head -1"
    words = ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert done.returncode == 0


def test_an_input_is_never_overwritten(tmp_path):
    trace = tmp_path / "lengths.csv"
    trace.write_text("length\n900\n")
    result = invoke(trace, "--cp", "2", "--processes", "1", "--out", trace)
    assert result.exit_code == 2
    assert "is an input of this command" in result.output
    assert trace.read_text() == "length\n900\n"


def test_neither_a_mixtures_files_nor_the_tokenizer_are_overwritten(tmp_path):
    trace, tokenizer = tmp_path / "lengths.csv", tmp_path / "tokenizer.json"
    trace.write_text("length\n900\n")
    tokenizer.write_text("{}")
    for words in ([f"{trace}=0.5,code=0.5", "--timeline", trace],
                  [trace, "--tokenizer", tokenizer, "--timeline", tokenizer]):  # fmt: skip
        result = invoke(*words, "--cp", "2", "--packs", "1")
        assert result.exit_code == 2, result.output
        assert f"{words[-1]} is an input of this command" in result.output
    assert trace.read_text() == "length\n900\n"
    assert tokenizer.read_text() == "{}"


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_no_terminal_is_too_narrow_for_a_number(columns):
    words = ["fixed:1m", "--documents", "2", "--context", "1m", "--cp", "64", "--processes", "1"]
    done = run(*words, "--model", "llama3-405b", env={**os.environ, "COLUMNS": columns})
    assert done.returncode == 0, done.stderr
    assert "…" not in done.stdout


def test_a_terminal_without_unicode_gets_the_numbers_all_the_same():
    done = run("papers", *SMALL, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "per-doc" in done.stdout


def test_what_crosses_nodes_is_reported_where_ranks_span_them():
    words = ("wlb-llm", "--packs", "2", "--cp", "4", "--compare", "per-doc,auto")
    two = run(*words, "--ranks-per-node", "2")
    assert "on 2 nodes" in two.stdout
    assert "across nodes" in two.stdout
    assert "across nodes" not in run(*words).stdout
    found = json.loads(run(*words, "--ranks-per-node", "2", "--json").stdout)["strategies"]
    # An all-gather takes every token across once; auto never sends more for no time.
    assert found["per-doc"]["across_tokens"] == 131_072
    assert found["per-doc"]["across_largest_tokens"] == 131_072 / 4
    assert 0 <= found["auto"]["across_largest_tokens"] <= found["auto"]["across_tokens"] < 131_072
    whole = json.loads(run(*words, "--json").stdout)["strategies"]
    assert whole["per-doc"]["across_tokens"] == whole["auto"]["across_tokens"] == 0
