"""`flashcp calibrate` as a user runs it, with little to measure, and what it refuses."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from costmodel import load_profile
from costmodel.calibrated import base_for, calibrated_profile
from costmodel.profile_file import write_profile
from flashcp_cli.calibrate_view import print_calibration
from flashcp_cli.crowding import RUN, warn_if_crowded
from flashcp_cli.main import cli
from tests.costmodel.calibration_points import all_points, conditions

TINY = """
import sys
from executor.calibration import request
from executor.calibration.request import Effort
small = Effort(attention_calls=8, head_dims=(32, 64), call_us=400.0, repeats=2,
               transfer_bytes=(2**12, 2**16, 2**14), copy_bytes=(2**18,),
               attention_s=3.0, transfers_s=2.0)
request.EFFORTS = dict.fromkeys(request.EFFORTS, small)
from flashcp_cli.main import main
main(sys.argv[1:])
"""

BASE = base_for("Test Processor, 2 cores")


def calibrate(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", TINY, "calibrate", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "80"} | environment,
    )


def refused(*arguments, status=2, **environment):
    result = calibrate(*arguments, **environment)
    assert (result.returncode, result.stdout) == (status, ""), result.stderr
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_json_needs_no_rich(tmp_path):
    (tmp_path / "rich.py").write_text("raise ModuleNotFoundError('no rich here')")
    out = tmp_path / "mine.json"
    words = ("--out", out, "--json", "--device", "cpu", "--nproc", "1")
    result = calibrate(*words, PYTHONPATH=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["profile"] == str(out)


def test_a_calibration_writes_a_profile_that_plans_are_predicted_with(tmp_path):
    out = tmp_path / "mine.json"
    result = calibrate("--out", out, "--json", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    document = json.loads(result.stdout)
    profile = load_profile(out)
    assert document["points"] == len(profile.points) > 50
    assert document["held_out"] == [error.to_json() for error in profile.provenance.held_out]
    assert profile.name == "mine"
    assert profile.provenance.date == document["date"]
    assert list(tmp_path.iterdir()) == [out]
    code = "import sys; from flashcp_cli.main import main; main(sys.argv[1:])"
    planned = subprocess.run(
        [sys.executable, "-c", code, "plan", "code", "--packs", "1", "--context", "2k", "--cp",
         "2", "--hardware", str(out), "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert planned.returncode == 0, planned.stderr
    shown = subprocess.run(
        [sys.executable, "-c", code, "hardware", "validate", str(out), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    again = [
        {k: v for k, v in error.items() if k != "profile"}
        for error in json.loads(shown.stdout)["errors"]
    ]
    assert again == document["held_out"]


def test_what_is_printed_says_how_far_to_trust_the_profile(capsys, tmp_path):
    slow = [replace(p, us=4 * p.us) if i in (3, 5) else p for i, p in enumerate(all_points())]
    made = calibrated_profile("laptop", conditions(), slow, load_profile("h100-sxm"))
    print_calibration(
        made, tmp_path / "x.json", noisy={"exchange": 0.4}, weak=["weak: here"], resumed=7,
        planned=len(made.points) + 12,
    )  # fmt: skip
    output = capsys.readouterr().out
    for words in ("laptop: Test Processor", "7 of them before", "left out of the fit", "bias",
                  "noisy: repeats of 40% of the exchange", "weak: here", "--hardware",
                  "left out of the fit: 2 attention calls",
                  "Time ran out before 12 more of the"):  # fmt: skip
        assert words in output


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_where_one_was_asked_for_is_one_line(tmp_path):
    line = refused("--device", "cuda", "--out", tmp_path / "p.json")
    assert "torch sees no GPU here; take --device cpu" in line


def test_outputs_that_cannot_be_written_are_refused_before_anything_is_measured(tmp_path):
    assert "is not a folder" in refused("--out", tmp_path / "none" / "p.json", "--device", "cpu")
    line = refused("--out", "/proc/p.json", "--device", "cpu", status=1)
    assert "/proc/p.json.partial" in line


@pytest.mark.parametrize("words", [["--timeout", "nan"], ["--timeout", "inf"], ["--out", ""]])
def test_values_that_mean_nothing_are_refused_by_their_options(words):
    assert f"Invalid value for '{words[0]}'" in refused("--device", "cpu", *words)


def test_a_group_that_does_not_form_is_one_line(tmp_path):
    group = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29986"}
    line = refused(
        "--out", tmp_path / "p.json", "--device", "cpu", "--timeout", "2", status=1, **group
    )
    assert "the group of 2 did not form within 2 s" in line
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_finds_nobody_says_so_in_one_line(tmp_path):
    group = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29985"}
    line = refused(
        "--out", tmp_path / "p.json", "--device", "cpu", "--timeout", "2", status=1, **group
    )
    assert "rank 1: the group of 2 did not form within 2 s" in line


def test_memory_that_does_not_suffice_is_one_line_and_leaves_no_profile(tmp_path):
    # As one rank of torchrun's, whose own errors nobody else puts into one line.
    limited = TINY.replace(
        "from flashcp_cli.main", "import executor.calibration.local as local\n"
        "local._ROW = (2**20, 2**20, 2)\nfrom flashcp_cli.main",
    )  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", limited, "calibrate", "--device", "cpu", "--nproc", "1",
         "--out", str(tmp_path / "p.json")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert re.search(r"rank 0: ran out of memory, \d{15} bytes more were refused", result.stderr)
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    ("device", "ranks", "local", "rank", "expected"),
    [
        ("cpu", 4, None, "0", "Warning: 4 ranks on 2 cores: each has half a core, so times come"),
        ("cpu", 6, "3", "0", "Warning: 3 ranks on 2 cores: each has 0.67 of a core, so times"),
        ("cpu", 4, "2", "0", ""),
        ("cpu", 2, None, "0", ""),
        ("cpu", 4, None, "1", ""),
        ("cuda", 4, None, "0", ""),
    ],
)
def test_ranks_that_share_cores_are_told_of_it_in_one_line(
    device, ranks, local, rank, expected, monkeypatch, capsys
):
    monkeypatch.setattr("executor.device.visible_devices", lambda _: 2)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    warn_if_crowded(device, ranks, RUN)
    said = capsys.readouterr().err
    assert said.startswith(expected)
    assert said.count("\n") == bool(expected)


def test_help_imports_no_torch():
    code = (
        "import sys; from flashcp_cli.calibrate import calibrate;"
        "calibrate(['--help'], standalone_mode=False);"
        "print(sorted({'numpy', 'numba', 'rich', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip().endswith("[]")


def test_a_run_takes_the_precision_that_its_profile_was_measured_in(tmp_path):
    path = tmp_path / "mine.json"
    write_profile(calibrated_profile("mine", conditions(), all_points(), BASE), path)
    words = ["wlb-llm", "--nproc", "2", "--context", "256", "--emulate", "--device", "cpu",
             "--strategies", "per-doc", "--repetitions", "1", "--warmups", "0", "--json",
             "--q-heads", "2", "--kv-heads", "1", "--head-dim", "16"]  # fmt: skip
    found = CliRunner().invoke(cli, ["run", *words, "--hardware", str(path)])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["dtype"] == "float32"
    assert found.stderr == (
        "Runs in float32, as profile mine was measured; the model's is bfloat16: --dtype bfloat16\n"
    )
    found = CliRunner().invoke(cli, ["run", *words])
    assert (json.loads(found.stdout)["dtype"], found.stderr) == ("bfloat16", "")
