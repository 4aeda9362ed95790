"""`flashcp simulate` from end to end: tables, JSON, results, bad input, interrupts, full disks."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from click.testing import CliRunner

from flashcp.simulation.results import load_results
from flashcp.simulation.step import RECOMPUTE
from flashcp.simulation.what_if import EXCHANGE_SWITCHES, OVERLAP_SWITCHES
from flashcp_cli import simulate as command
from flashcp_cli.main import cli

SMALL = ["--packs", "3", "--processes", "1", "--context", "16k", "--cp", "2,4",
         "--strategy", "per-seq,flashcp"]  # fmt: skip


def invoke(*words):
    return CliRunner().invoke(cli, ["simulate", *map(str, words)], prog_name="flashcp")


def test_names_in_help_are_those_of_the_library():
    assert command.EXCHANGES == EXCHANGE_SWITCHES
    assert command.OVERLAPS == OVERLAP_SWITCHES
    assert command.RECOMPUTE == RECOMPUTE


def test_the_table_is_best_first_and_gives_a_reason_for_every_row():
    result = invoke("papers", "code", *SMALL)
    assert result.exit_code == 0, result.output
    assert "4 configurations of 2 strategies, 3 packs each" in result.output
    lines = [line.split() for line in result.output.splitlines()]
    rates = [int(line[-1].replace(",", "")) for line in lines if line and line[-1][-1].isdigit()
             and len(line) > 10 and line[0].isdigit()]  # fmt: skip
    assert len(rates) == 8
    assert rates == sorted(rates, reverse=True)
    told = " ".join(result.output.split())
    assert told.count("ms before") + told.count("ms behind") == 8
    assert {"trace", "CP"} <= set(result.output.split())  # what varies has columns ...
    assert "window 16k" in result.output  # ... and what does not is said once


def test_one_of_a_kind_is_not_several():
    one = ["--packs", "1", "--processes", "1", "--context", "16k", "--cp", "2"]
    result = invoke("papers", *one, "--strategy", "zigzag")
    assert "1 configuration of 1 strategy, 1 pack each" in result.output
    assert "of one replica" in result.output


def test_json_is_one_document_and_nothing_else():
    document = json.loads(invoke("papers", *SMALL, "--json").output)
    assert document["configurations"] == 2
    assert len(document["rows"]) == 4
    for row in document["rows"]:
        assert row["total_us"]["low"] <= row["total_us"]["value"] <= row["total_us"]["high"]
        assert row["memory"]["total_bytes"] > 0
        assert row["fits"] is True
        assert row["step_speedup"]["value"] > 0


def test_every_switch_is_an_axis_so_an_ablation_is_one_command():
    words = ["--exchange", "own,needed", "--overlap", "own,off", "--copies",
             "published,in-place", "--kernel-speed", "1,2", "--link-bandwidth", "1,0.5",
             "--kv-heads", "8,32", "--cp", "4", "--packs", "2"]  # fmt: skip
    document = json.loads(invoke("code", *SMALL, *words, "--json").output)
    assert document["configurations"] == 2**6
    by = pd.DataFrame(document["rows"])
    by["us"] = [row["total_us"]["value"] for row in document["rows"]]
    mean = {axis: by.groupby(axis)["us"].mean() for axis in
            ("copies", "kernel_speed", "link_bandwidth", "kv_heads", "exchange")}  # fmt: skip
    assert mean["copies"]["in-place"] < mean["copies"]["published"]
    assert mean["kernel_speed"][2.0] < mean["kernel_speed"][1.0]
    assert mean["link_bandwidth"][0.5] > mean["link_bandwidth"][1.0]
    assert mean["kv_heads"][32] > mean["kv_heads"][8]
    moved = by.groupby("exchange")["moved_share"].mean()
    assert moved["needed"] < moved["own"]
    assert all(row["step_us"] is None for row in document["rows"])  # heads alone have no step


def test_results_hold_a_row_a_pack_and_strategy(tmp_path):
    out = tmp_path / "rows.parquet"
    result = invoke("papers", *SMALL, "--out", out)
    assert result.exit_code == 0, result.output
    rows = load_results(out)
    assert len(rows) == 2 * 2 * 3
    pd.testing.assert_frame_equal(  # any reader of Parquet sees the same
        pd.read_parquet(out), rows, check_dtype=False, check_categorical=False
    )
    again = invoke("papers", *SMALL, "--out", out)
    assert again.exit_code == 0
    assert again.output == result.output


def test_the_timeline_is_that_of_the_best(tmp_path):
    out = tmp_path / "timeline.json"
    assert invoke("papers", *SMALL, "--timeline", out, "--picture", "2").exit_code == 0
    events = json.loads(out.read_text())["traceEvents"]
    assert {event["pid"] for event in events} in ({0, 1}, {0, 1, 2, 3})


def test_replicas_and_recomputation_change_the_step_alone():
    one = json.loads(invoke("papers", *SMALL, "--json").output)["rows"]
    words = ["--replicas", "3", "--recompute", "none"]
    three = json.loads(invoke("papers", *SMALL, *words, "--json").output)["rows"]

    def by(rows, field):
        return {(row["cp"], row["strategy"]): row[field] for row in rows}

    assert by(one, "total_us") == by(three, "total_us")
    for key, step in by(three, "step_us").items():
        assert step["value"] != by(one, "step_us")[key]["value"]
        assert step["low"] == step["high"]  # one step of three packs has no spread


BAD = [
    ([], "Missing argument"),
    (["nowhere.csv"], "nowhere.csv"),
    (["papers", "papers"], "papers twice"),
    (["papers", "--cp", "2,,4"], "empty place"),
    (["papers", "--cp", "2,2"], "twice"),
    (["papers", "--cp", ""], "empty place"),
    (["papers", "--cp", "0"], "0 is not in"),
    (["papers", "--context", "128q"], "'128q'"),
    (["papers", "--strategy", "all,ring"], "all stands alone"),
    (["papers", "--strategy", "rign"], "did you mean 'ring'?"),
    (["papers", "--strategy", "ring", "--overlap", "on"], "rings have one way to run"),
    (["papers", "--exchange", "some"], "'some'"),
    (["papers", "--kernel-speed", "fast"], "fast"),
    (["papers", "--kernel-speed", "0"], "kernel_speed 0.0 is not a factor"),
    (["papers", "--link-bandwidth", "nan"], "link_bandwidth nan is not a factor"),
    (["papers", "--tensor-parallel", "5"], "degree 5 does not divide"),
    (["papers", "--cp", "4,8", "--ranks-per-node", "8"], "8 ranks per node do not divide 4"),
    (["papers", "--model", "llama3-9b"], "llama3-8b"),
    (["papers", "--hardware", "h100"], "h100-sxm"),
    (["papers", "--replicas", "64", "--packs", "10"], "10 packs are not enough"),
    (["papers", "--memory-gb", "0"], "0 is not in"),
    (["papers", "--memory-gb", "nan"], "nan is not in"),
    (["papers", "--memory-gb", "inf"], "inf is not in"),
    (["papers", "--plots", ""], "'' is no path; name a folder"),
    (["papers", "--out", ""], "'' is no path; name a file"),
    (["papers", "--memory-gb", "10"], "would fit"),
    (["papers", "--model", "llama3-405b"], "would fit"),
    (["papers", "--out", "nowhere/rows.parquet"], "nowhere is not a folder"),
    (["papers", "--html", "nowhere/page.html"], "nowhere is not a folder"),
    (["papers", "--html", "same", "--timeline", "same"], "same is already --html's"),
    (["papers", "--cluster", "127.0.0.1:1", "--processes", "2"], "--processes is for this machine"),
    (["papers", *SMALL, "--picture", "3"], "3 is no pack; there are 3"),
]


@pytest.mark.parametrize(("words", "named"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_line_and_exit_2(words, named, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    from flashcp_cli.main import main

    with pytest.raises(SystemExit) as stop:
        main(["simulate", *words])
    captured = capfd.readouterr()
    assert stop.value.code == 2, captured.err
    assert captured.out == ""
    assert named in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_output_never_replaces_an_input(tmp_path):
    lengths = tmp_path / "lengths.csv"
    lengths.write_text("length\n" + "700\n" * 100)
    result = invoke(lengths, *SMALL, "--timeline", lengths)
    assert result.exit_code == 2
    assert "is an input of this command; name another file" in result.output
    assert lengths.read_text().startswith("length\n700\n")


def test_a_pack_that_cannot_be_pictured_is_refused_before_the_sweep():
    result = invoke("papers", "--packs", "100000", "--picture", "100000")
    assert result.exit_code == 2
    assert "100000 is no pack; there are 100000" in result.output


def test_a_sweep_with_other_settings_is_refused(tmp_path):
    out = tmp_path / "rows.parquet"
    assert invoke("papers", *SMALL, "--out", out).exit_code == 0
    before = out.read_bytes()
    result = invoke("papers", *SMALL, "--seed", "1", "--out", out)
    assert "other settings: seed 0 there, 1 now" in str(result.exception)
    assert out.read_bytes() == before


LONG = ["simulate", "code", "--packs", "2000", "--context", "64k", "--cp", "4,8", "--strategy",
        "flashcp,zigzag"]  # fmt: skip


def start(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "flashcp_cli", *LONG, *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        **options,
    )  # fmt: skip


def wait_for_blocks(folder):
    for _ in range(1200):
        if len(list(folder.glob("*.parquet"))) >= 2:
            return
        time.sleep(0.05)
    pytest.fail("no block came")


def test_an_interrupted_simulation_goes_on_where_it_was(tmp_path):
    out = tmp_path / "rows.parquet"
    process = start("--out", out, "--processes", "2")
    partial = tmp_path / "rows.parquet.partial"
    wait_for_blocks(partial)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the group
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.strip().startswith("flashcp: interrupted")
    assert not out.exists()
    kept = sorted(part.name for part in partial.glob("*.parquet"))
    assert kept
    assert not list(partial.glob("*.tmp"))
    times = {name: (partial / name).stat().st_mtime_ns for name in kept}
    process = start("--out", out, "--processes", "2")
    wait_for_blocks(partial)
    assert {n: (partial / n).stat().st_mtime_ns for n in kept if (partial / n).exists()}.items() \
        <= times.items()  # fmt: skip
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert sorted(tmp_path.iterdir()) == [out]


def test_a_full_disk_is_one_line_and_keeps_what_was_computed(tmp_path):
    def small_files():  # a disk on which no file can grow beyond 8 kB
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    out = tmp_path / "rows.parquet"
    process = start("--out", out, "--processes", "1", preexec_fn=small_files)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert err.count("\n") == 1
    assert "too large" in err
    assert f"{out}: " in err
    assert "what was computed is kept: run again" in err
    assert not out.exists()
    assert not list(tmp_path.rglob("*.tmp"))


def test_traces_that_make_unlike_many_packs_are_told_as_a_range(tmp_path):
    short = tmp_path / "short.csv"
    short.write_text("length\n" + "700\n" * 6)  # two packs of 2k
    result = invoke(short, "papers", "--packs", "3", "--context", "2k", "--cp", "2")
    assert "2 to 3 packs each" in result.output
