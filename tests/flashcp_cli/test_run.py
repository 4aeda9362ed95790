"""`flashcp run` from end to end: gloo ranks, torchrun, emulation, files, bad input, faults."""

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from executor import RunError, emulated
from flashcp.strategies import NAMES
from flashcp_cli.main import cli

SMALL = ["--q-heads", "2", "--kv-heads", "1", "--head-dim", "16", "--repetitions", "1",
         "--warmups", "0", "--device", "cpu"]  # fmt: skip
PROGRAM = "from flashcp_cli.boundary import run as go; from flashcp_cli.run import run; go(run)"


def start(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "flashcp_cli", "run", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=200)
    return process.returncode, out, err


def invoke(*words):
    return CliRunner().invoke(cli, ["run", *map(str, words)], prog_name="flashcp")


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("plans") / "plan.parquet"
    words = ["wlb-llm", "--cp", "2", "--context", "1k", "--packs", "2", "--processes", "1",
             "--strategy", "flashcp", "--compare", "flashcp", "--out", str(path)]  # fmt: skip
    result = CliRunner().invoke(cli, ["plan", *words])
    assert result.exit_code == 0, result.output
    return path


def test_gloo_ranks_run_every_strategy_and_the_files_hold_what_was_found(tmp_path):
    results, timeline = tmp_path / "results.json", tmp_path / "timeline.json"
    status, out, err = finish(
        start("wlb-llm", "--nproc", 2, "--json", "--context", "512",
              "--results", results, "--timeline", timeline, *SMALL)
    )  # fmt: skip
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert json.loads(results.read_text()) == document
    assert tuple(document["plans"]) == NAMES
    assert document["environment"]["backend"] == "gloo"
    assert not document["comparable"]
    for one in document["plans"].values():
        assert one["passed"]
        assert one["verification"]["kv_heads"] == 1
        assert [rank["sent_bytes"] for rank in one["ranks"]] == [
            rank["planned_bytes"] for rank in one["ranks"]
        ]
    trace = json.loads(timeline.read_text())
    assert trace["distributedInfo"] == {"rank": 0}
    assert len(trace["traceEvents"]) > 50
    assert set(tmp_path.iterdir()) == {results, timeline}  # no temporary file is left


def test_a_plan_file_runs_inside_torchrun_and_rank_0_alone_reports(plan_file):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                "2", "--no-python", sys.executable, "-c", PROGRAM]  # fmt: skip
    done = subprocess.run(
        [*torchrun, str(plan_file), "--pack", "1", "--json", *SMALL],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["cp"] == 2
    assert document["source"]["pack"] == 1
    assert document["plans"]["flashcp"]["passed"]


def test_emulation_is_labelled_in_tables_and_runs_without_other_processes(plan_file):
    result = invoke(plan_file, "--emulate", "--strategies", "per-seq", *SMALL)
    assert result.exit_code == 0, result.output
    assert "Emulated: all ranks in turn on one device" in result.output
    assert "measured and predicted times are not comparable" in result.output
    assert "passed" in result.output
    assert "FAILED" not in result.output


def test_published_copies_are_run_said_and_predicted(plan_file):
    words = ("--emulate", "--copies", "published", "--gradients", "reduce-scatter", *SMALL)
    result = invoke(plan_file, *words)
    assert result.exit_code == 0, result.output
    assert "copy KV shard by shard, as published" in result.output
    assert "by reduce-scatter, in float32" in result.output
    copies = {}
    for way in ("published", "in-place"):
        document = json.loads(invoke(plan_file, *words, "--copies", way, "--json").stdout)
        assert document["copies"] == way
        (one,) = document["plans"].values()
        assert one["passed"]
        copies[way] = sum(rank["predicted_us"]["copies"] for rank in one["ranks"])
    assert copies["published"] > copies["in-place"]


def test_on_the_profiles_device_every_rank_shows_its_signed_error(plan_file, monkeypatch):
    monkeypatch.setattr("executor.report.is_comparable", lambda *_: True)
    result = invoke(plan_file, "--emulate", "--strategies", "per-seq", *SMALL)
    assert result.exit_code == 0, result.output
    assert "not comparable" not in result.output
    # A CPU takes far longer than was predicted for the GPU; both strategies and both ranks say so.
    assert len(re.findall(r"-(?:9\d|100)\.\d%", result.output)) == 4
    assert "redicted" in result.output.splitlines()[-1]


def test_a_host_that_is_slower_than_its_device_is_warned_of(plan_file, monkeypatch):
    real = emulated.rank_rows

    def rows(*arguments, **named):
        found = real(*arguments, **named)
        for row, host_us in zip(found, (1.0, 5e6), strict=True):
            row["host_us"] = {"forward": 1.0, "backward": host_us}
        return found

    monkeypatch.setattr(emulated, "rank_rows", rows)
    result = invoke(plan_file, "--emulate", "--strategies", "per-seq", *SMALL)
    assert result.exit_code == 0, result.output
    warned = [line for line in result.output.splitlines() if "training waits for it" in line]
    assert [line.split(":")[0] for line in warned] == ["flashcp", "per-seq"]
    assert all("takes 5000 ms to queue backward, what the device does" in line for line in warned)


def test_a_verification_that_fails_ends_with_status_1(plan_file, monkeypatch):
    monkeypatch.setattr("executor.verify.tolerances", lambda *_: dict.fromkeys(
        ("out", "dq", "dk", "dv"), 0.0))  # fmt: skip
    result = invoke(plan_file, "--emulate", *SMALL)
    assert result.exit_code == 1
    assert "verification failed for flashcp" in result.output


def test_without_verification_nothing_is_claimed(plan_file):
    result = invoke(plan_file, "--emulate", "--no-verify", "--json", *SMALL)
    assert json.loads(result.output)["plans"]["flashcp"]["verification"] is None


def test_without_torch_one_line_says_what_to_install(monkeypatch, plan_file):
    monkeypatch.setitem(sys.modules, "torch", None)
    result = invoke(plan_file)
    assert result.exit_code == 1
    assert result.output == (
        "Error: flashcp run needs PyTorch; install it with: pip install 'flashcp[run]'\n"
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--nproc", "4"], "4 ranks cannot run a plan for 2; plan again with --cp 4"),
        (["--pack", "2"], "2 is no pack; there are 2, from 0"),
        (["--strategies", "per-dok"], "did you mean 'per-doc'?"),
        (["--results", "/nowhere/x.json"], "/nowhere is not a folder"),
        (["--timeout", "0"], "0 is not in 1..604800"),
    ],
)
def test_wrong_input_is_refused_with_the_value_before_anything_runs(plan_file, words, line):
    result = invoke(plan_file, "--emulate", *SMALL, *words)
    assert result.exit_code == 2
    assert line in result.output


@pytest.fixture(scope="module")
def two_level_file(plan_file, tmp_path_factory):
    from flashcp.exchange import Exchange
    from flashcp.plan_file import load_plans, save_plans

    saved = load_plans(plan_file)
    levels = {"exchange": Exchange.ALL_TO_ALL_TWO_LEVEL, "ranks_per_node": 1, "overlap": True}
    path = tmp_path_factory.mktemp("plans") / "levels.parquet"
    save_plans(path, replace(saved, plans=[replace(one, **levels) for one in saved.plans]))
    return path


def test_a_plan_of_two_levels_runs_on_the_nodes_it_was_made_for(two_level_file):
    result = invoke(two_level_file, "--emulate", "--json", *SMALL)
    assert result.exit_code == 0, result.output
    (one,) = json.loads(result.stdout)["plans"].values()
    assert one["passed"]


def test_other_nodes_than_the_plans_are_refused_before_any_rank_is_started(
    two_level_file, monkeypatch
):
    monkeypatch.setattr("flashcp_cli.run._execute", lambda *_, **__: pytest.fail("started"))
    result = invoke(two_level_file, "--ranks-per-node", "2", *SMALL)
    assert result.exit_code == 2
    assert "2 is not the 1 ranks per node that the plan was made for" in result.output
    assert "leave it out, or plan again with --ranks-per-node 2" in " ".join(result.output.split())


def test_a_plan_that_is_cut_short_is_refused(tmp_path, plan_file):
    broken = tmp_path / "plan.parquet"
    broken.write_bytes(plan_file.read_bytes()[:-100])
    status, _, err = finish(start(broken, *SMALL))
    assert status == 2
    assert err.count("\n") == 1


@pytest.mark.parametrize(("ranks", "more"), [(4, ()), (2, ()), (4, ("--emulate",))])
def test_more_ranks_than_cores_are_warned_of_before_the_run(monkeypatch, ranks, more):
    def stopped(*_):
        raise RunError("stopped here")

    monkeypatch.setattr("executor.device.visible_devices", lambda device: 2 * (device == "cpu"))
    monkeypatch.setattr("executor.launch.launch", stopped)
    monkeypatch.setattr("executor.emulated.emulate_job", stopped)
    words = ("wlb-llm", "--nproc", ranks, "--context", 256, "--strategies", "per-doc", *SMALL)
    result = invoke(*words, "--device", "cpu", *more)
    warned = ranks == 4 and not more
    said = (
        "Warning: 4 ranks on 2 cores: each has half a core, so times come out longer than "
        "predicted; compare shares\n"
    )
    assert result.stderr == warned * said + "Error: stopped here\n"


def test_too_few_gpus_is_one_line(plan_file):
    import torch

    if torch.cuda.device_count() >= 2:
        pytest.skip("there are enough GPUs")
    there = torch.cuda.device_count()
    says = "2 ranks need a GPU each and torch sees" if there else "torch sees no GPU here"
    for words in ([plan_file], ["papers"], ["papers", "--emulate"])[: None if not there else 1]:
        result = invoke(*words, *SMALL[:-1], "cuda")
        assert result.exit_code == 2, result.output
        assert says in result.output


@pytest.mark.parametrize(
    "words",
    [["--context", "1k"], ["--pack-by", "concat"], ["--corpus-order"], ["--column", "length"],
     ["--documents", "9"]],
    ids=" ".join,
)  # fmt: skip
def test_options_that_a_plan_file_has_no_use_for_are_refused(plan_file, words):
    result = invoke(plan_file, *SMALL, *words)
    assert result.exit_code == 2
    assert f"{words[0]} is for a trace, and {plan_file} is a plan file" in result.output


@pytest.mark.parametrize("words", [["--plan-effort", "2"], ["--balance", "time"]], ids=" ".join)
def test_how_to_plan_is_refused_where_nothing_is_to_be_planned(plan_file, words):
    result = invoke(plan_file, "--emulate", "--device", "cpu", *words)
    assert result.exit_code == 2
    assert f"{words[0]} is for plans to make, and {plan_file} has them made" in result.output


@pytest.mark.parametrize("seed", ["-5", "99999999999999999999999"])
def test_any_seed_draws_inputs(plan_file, seed):
    result = invoke(plan_file, *SMALL, "--emulate", "--seed", seed)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_every_rank_with_its_status(plan_file, tmp_path, number, expected):
    results = tmp_path / "results.json"
    process = start(plan_file, *SMALL, "--repetitions", 100000, "--results", results,
                    start_new_session=True)  # fmt: skip
    children = _wait_for_ranks(process.pid)
    process.send_signal(number)
    status, _, err = finish(process)
    assert status == expected
    assert err.strip().count("\n") == 0
    assert not results.exists()
    assert not any(_alive(child) for child in children)


def test_ranks_end_when_their_launcher_is_killed(plan_file):
    process = start(plan_file, *SMALL, "--repetitions", 100000)
    children = _wait_for_ranks(process.pid)
    process.kill()
    process.communicate(timeout=10)
    deadline = time.monotonic() + 20
    while any(_alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_alive(child) for child in children)


def _wait_for_ranks(pid):
    """Wait until both ranks have begun to write, and return every child of the command."""
    deadline = time.monotonic() + 150
    begun = f"flashcp-run-{pid}-*/output-*.log"
    while len(list(Path(tempfile.gettempdir()).glob(begun))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(2)  # well into it
    children = _children(pid)
    assert len(children) >= 2
    return children


def _children(pid):
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
