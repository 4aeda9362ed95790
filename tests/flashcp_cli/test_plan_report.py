"""What `flashcp plan` says beside its tables: gaps, memory, ties, plan effort."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from flashcp import auto, exact
from flashcp_cli import plan_memory
from flashcp_cli.main import cli
from flashcp_cli.setting_options import _MOST_EFFORT, DEFAULT_HARDWARE, DEFAULT_MODEL

SMALL = ["--packs", "2", "--processes", "1", "--context", "8k", "--cp", "2"]


def invoke(*words):
    result = CliRunner().invoke(cli, ["plan", *map(str, words)], prog_name="flashcp")
    assert result.exit_code == 0, result.output
    return result.output


def test_defaults_and_limits_are_those_of_the_library():
    from flashcp import default_setting

    setting = default_setting()
    assert (setting.profile.name, setting.model.name) == (DEFAULT_HARDWARE, DEFAULT_MODEL)
    assert auto.MOST_EFFORT == _MOST_EFFORT


def test_gaps_are_those_of_the_report():
    document = json.loads(invoke("long-sft", *SMALL, "--gap", "--json"))
    found = document["gap"]
    assert list(found["strategies"]) == list(document["strategies"])
    assert found["exact"]["small_packs"] == found["exact"]["tried_packs"] == 2
    assert found["exact"]["found"]
    for name, gap in found["strategies"].items():
        assert 0 <= gap["time"]["mean"] <= gap["time"]["worst"], name
        assert 0 <= gap["traffic"]["mean"] <= gap["traffic"]["worst"], name
        assert gap["exact"]["mean"] <= gap["exact"]["worst"]


def test_the_table_of_gaps_says_on_how_many_packs_the_exact_was_proven():
    output = invoke("long-sft", *SMALL, "--gap")
    assert "time over" in output
    assert "of 2 packs tried, of 2 that are small enough" in output
    assert "no pack is small enough for 64 ranks" in invoke("long-sft", *SMALL[:-1], "64", "--gap")


def test_without_gap_the_solver_is_not_asked_for():
    assert "gap" not in json.loads(invoke("long-sft", *SMALL, "--json"))


def test_gaps_without_scipy_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(exact, "find_spec", lambda name: None)
    from flashcp_cli.boundary import run

    with pytest.raises(SystemExit) as stop:
        run(cli, ["plan", "papers", "--gap"])
    assert stop.value.code == 2


def test_memory_is_reported_a_rank_and_at_most():
    document = json.loads(invoke("papers", *SMALL, "--json"))
    memory = document["memory"]
    assert len(memory["picture_rank_bytes"]) == 2
    assert memory["largest_bytes"] >= max(memory["picture_rank_bytes"]) > 2**20
    assert memory["packs"] == 2
    output = invoke("papers", *SMALL)
    assert f"{memory['picture_rank_bytes'][1] / 1e9:.2f} GB\n" in output
    assert f"{memory['largest_bytes'] / 1e9:.2f} GB at most on a rank" in output


def test_memory_of_too_many_ranks_is_left_out_and_said(monkeypatch):
    monkeypatch.setattr(plan_memory, "_MOST_CELLS", 0)
    assert "Memory is not estimated" in invoke("papers", *SMALL)
    memory = json.loads(invoke("papers", *SMALL, "--json"))["memory"]
    assert memory == {"picture_rank_bytes": None, "largest_bytes": None, "packs": 0}


def test_the_memory_is_that_of_the_executor():
    from costmodel import load_model
    from executor.memory import memory_bytes
    from flashcp.strategies import shard

    model = load_model("llama3-8b")
    plan = shard([900, 70, 54], 4, "flashcp")
    wanted = memory_bytes(plan, model)
    assert np.array_equal(plan_memory.rank_bytes(plan, model), wanted)
    assert plan_memory.largest_bytes(plan, model=model) == wanted.max()


def test_where_auto_gains_nothing_the_report_says_so():
    output = invoke("fixed:8k", "--documents", "1", *SMALL[2:-1], "1", "--model", "paper-h32")
    assert "Auto is within 1% of per-doc on this pack: one document fills the window" in output
    several = invoke("fixed:8k", "--documents", "3", *SMALL[2:-1], "1")
    assert "on 3 of 3 packs: in 3 of them one document fills the window" in several


def test_more_effort_is_more_search():
    times = []
    for effort in ("0", "4"):
        words = ["code", *SMALL[:4], "--context", "64k", "--cp", "8", "--plan-effort", effort]
        document = json.loads(invoke(*words, "--json"))
        assert document["plan_effort"] == float(effort)
        times.append(document["strategies"]["auto"]["total_us"])
    assert times[1] < times[0]


def test_even_times_are_predicted_faster_than_even_work():
    found = {}
    for balance in ("work", "time"):
        words = ["code", *SMALL[:4], "--context", "64k", "--cp", "8", "--balance", balance]
        document = json.loads(invoke(*words, "--json"))
        assert document["balance"] == balance
        found[balance] = document["strategies"]["auto"]
    assert found["time"]["total_us"] < found["work"]["total_us"]
    assert found["time"]["imbalance"]["mean"] > found["work"]["imbalance"]["mean"]


@pytest.mark.parametrize("effort", ["nan", "-1", "1e7", "fast"])
def test_an_impossible_effort_names_the_value(effort, capfd):
    from flashcp_cli.main import main

    with pytest.raises(SystemExit) as stop:
        main(["plan", "papers", "--plan-effort", effort])
    error = capfd.readouterr().err
    assert stop.value.code == 2
    assert effort in error
    assert error.count("\n") == 1
