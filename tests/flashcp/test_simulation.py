"""Sweeps: nothing but their settings changes a bit; steps, memory and reasons add up."""

import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmodel import load_model, load_profile
from flashcp.comparison import compare
from flashcp.errors import PlanError
from flashcp.prediction import Setting, predict
from flashcp.simulation.block import Job, kept_tokens
from flashcp.simulation.capacity import capacities, require_fit
from flashcp.simulation.engines import LocalEngine, Task
from flashcp.simulation.run import BLOCK_PACKS, simulate
from flashcp.simulation.step import StepModel
from flashcp.simulation.summary import summarise
from flashcp.simulation.sweep import Sweep
from flashcp.simulation.switched import switched_plan
from flashcp.simulation.what_if import WhatIf
from flashcp.strategies import STRATEGIES, shard
from tests.flashcp.packs import lengths
from traces import Trace, load

H100, LLAMA = load_profile("h100-sxm"), load_model("llama3-8b")
SETTING = Setting(profile=H100, model=LLAMA)
FIXED = tuple(STRATEGIES)


def sweep(**changes):
    defaults = {
        "traces": [load("papers")],
        "context_tokens": [16384],
        "cp": [2, 4],
        "strategies": FIXED,
        "profiles": [H100],
        "models": [LLAMA],
        "packs": 5,
    }
    return Sweep(**(defaults | changes))


def test_rows_are_what_compare_finds_on_the_same_packs():
    simulated = simulate(sweep(cp=[4]), engine=LocalEngine(1))
    packing = next(iter(simulated.packings.values()))
    found = compare(packing, 4, FIXED, SETTING)
    for name in FIXED:
        rows = simulated.rows[simulated.rows["strategy"] == name]
        for column in ("total_us", "exchange_us", "copies_us", "imbalance", "eq5_share", "padded"):
            expected = getattr(found.outcomes[name], column)
            np.testing.assert_allclose(rows[column], expected, rtol=1e-9, atol=1e-6)


def test_every_configuration_sees_the_same_packs():
    wide = sweep(cp=[2, 4], what_ifs=[WhatIf(), WhatIf(kernel_speed=2.0)])
    rows = simulate(wide, engine=LocalEngine(1)).rows
    assert len(rows) == 2 * 2 * len(FIXED) * 5
    tokens = rows.groupby(["cp", "kernel_speed", "strategy"], observed=True)["documents"]
    assert len({tuple(values) for _, values in tokens}) == 1


def test_rows_lie_where_their_settings_say():
    traces = [load("papers"), Trace("few", np.array([9000, 30_000, 700], np.int32))]
    simulated = simulate(sweep(traces=traces), engine=LocalEngine(1))
    seen = 0
    for configuration, strategy, frame in simulated.frames():
        assert set(frame["strategy"]) == {strategy}
        assert set(frame["trace"]) == {configuration.trace}
        assert set(frame["cp"]) == {configuration.cp}
        assert list(frame["pack"]) == list(range(len(frame)))
        seen += len(frame)
    assert seen == len(simulated.rows)


def test_processes_and_interrupts_do_not_change_a_byte(tmp_path):
    many = sweep(packs=2 * BLOCK_PACKS + 3, strategies=("per-seq", "flashcp"), cp=[4],
                 context_tokens=[8192])  # fmt: skip
    whole, resumed = tmp_path / "whole.parquet", tmp_path / "resumed.parquet"
    simulate(many, whole, engine=LocalEngine(2))

    class Interrupted(LocalEngine):
        def map(self, job, tasks, count):
            for done, result in enumerate(super().map(job, tasks, count)):
                if done == 1:
                    raise KeyboardInterrupt
                yield result

    with pytest.raises(KeyboardInterrupt):
        simulate(many, resumed, engine=Interrupted(1))
    assert not resumed.exists()
    seen = []
    simulate(many, resumed, engine=LocalEngine(1),
             begin=lambda done, total: seen.append((done, total)) or (lambda _: None))  # fmt: skip
    assert seen == [(BLOCK_PACKS, 2 * BLOCK_PACKS + 3)]
    assert resumed.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.iterdir()) == [resumed, whole]


def test_a_finished_sweep_is_read_not_run(tmp_path):
    out = tmp_path / "rows.parquet"
    first = simulate(sweep(), out, engine=LocalEngine(1)).rows

    class Never:
        def map(self, job, tasks, count):
            raise AssertionError

    pd.testing.assert_frame_equal(simulate(sweep(), out, engine=Never()).rows, first)


@pytest.mark.parametrize("finished", [False, True])
def test_results_of_other_settings_are_left_alone(tmp_path, finished):
    out = tmp_path / "rows.parquet"
    simulate(sweep(), out, engine=LocalEngine(1))
    if not finished:
        other = tmp_path / "rows.parquet.partial"
        out.unlink()

        class Stops(LocalEngine):
            def map(self, job, tasks, count):
                raise KeyboardInterrupt
                yield

        with pytest.raises(KeyboardInterrupt):
            simulate(sweep(), out, engine=Stops(1))
        assert other.is_dir()
    with pytest.raises(PlanError, match=r"other settings: cp \[2, 4\] there, \[8\] now"):
        simulate(sweep(cp=[8]), out, engine=LocalEngine(1))


def test_results_of_another_release_are_left_alone(tmp_path, monkeypatch):
    out = tmp_path / "rows.parquet"
    simulate(sweep(), out, engine=LocalEngine(1))
    monkeypatch.setattr("flashcp.simulation.results.version", lambda _: "99.0")
    with pytest.raises(
        PlanError, match=r"is by flashcp [\d.]+\w*, this is 99\.0; take another --out"
    ):
        simulate(sweep(), out, engine=LocalEngine(1))


def test_a_file_that_is_no_result_is_left_alone(tmp_path):
    out = tmp_path / "notes.txt"
    out.write_text("mine")
    with pytest.raises(PlanError, match="is no simulation's results"):
        simulate(sweep(), out, engine=LocalEngine(1))
    assert out.read_text() == "mine"


class Lethal(Job):
    """A job whose process dies: once, where there is a flag file to remember it by, or always."""

    def __init__(self, flag):
        object.__setattr__(self, "flag", flag)
        object.__setattr__(self, "strategies", ("per-seq",))
        object.__setattr__(self, "parent", os.getpid())

    def run(self, cell, packs):
        if os.getpid() != self.parent and not (self.flag and self.flag.exists()):
            if self.flag:
                self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.zeros((len(packs), 1, 1))


def tasks(count):
    return [Task(cell=0, block=i, first_pack=i, packs=[np.ones(1, np.int32)]) for i in range(count)]


def test_a_killed_worker_costs_nothing_but_its_blocks_in_flight(tmp_path):
    done = [t.block for t, _ in LocalEngine(2).map(Lethal(tmp_path / "flag"), tasks(7), 7)]
    assert sorted(done) == list(range(7))


def test_workers_that_are_always_killed_are_one_line(tmp_path):
    with pytest.raises(ChildProcessError, match=r"killed twice.*fewer --processes"):
        list(LocalEngine(2).map(Lethal(None), tasks(5), 5))


class Fails:
    """An engine that computes one block and then fails."""

    def map(self, job, tasks, count):
        yield from LocalEngine(1).map(job, [next(tasks)], 1)
        raise ChildProcessError("a worker is gone")


def test_a_failure_says_what_is_kept(tmp_path):
    out = tmp_path / "rows.parquet"
    line = r"rows\.parquet: a worker is gone; what was computed is kept: run again to go on"
    with pytest.raises(OSError, match=line):
        simulate(sweep(), out, engine=Fails())
    assert len(list(tmp_path.rglob("*.parquet"))) == 1
    with pytest.raises(OSError, match=r"a worker is gone; without .*--out.* nothing is kept"):
        simulate(sweep(), engine=Fails())


@given(pack=lengths(12), exchange=st.sampled_from(["own", "all-gather", "non-last", "needed"]),
       overlap=st.sampled_from(["own", "on", "off"]))  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_switched_plans_run_as_asked_and_rings_stay(pack, exchange, overlap):
    what_if = WhatIf(exchange=exchange, overlap=overlap)
    kinds = {"all-gather": "all-gather", "non-last": "all-gather-non-last",
             "needed": "all-to-all-needed"}  # fmt: skip
    for strategy in FIXED:
        made = switched_plan(pack, 4, strategy, SETTING, what_if)
        made.validate()
        own = shard(pack, 4, strategy)
        assert made.fingerprint == own.fingerprint or what_if.switches_plans
        if own.exchange == "ring":
            assert made.exchange == "ring"
        else:
            assert made.exchange == kinds.get(exchange, own.exchange)
            assert made.overlap == (overlap == "on")


def test_auto_chooses_again_among_what_is_left():
    pack = np.array([60_000, 3_000, 3_000, 17_000, 500, 500], np.int32)
    setting = replace(SETTING, copies="in-place")
    what_if = WhatIf(exchange="all-gather", overlap="off")
    made = switched_plan(pack, 4, "auto", setting, what_if)
    assert (made.exchange, made.overlap) == ("all-gather", False)
    best = predict(made, setting).total_us
    for name in ("per-seq", "per-doc", "flashcp"):
        other = switched_plan(pack, 4, name, setting, what_if)
        assert best <= predict(other, setting).total_us * (1 + 1e-9)


@given(pack=lengths(12))
@settings(max_examples=20, deadline=None)
def test_better_links_and_kernels_never_cost_time(pack):
    for strategy in FIXED:
        plan = shard(pack, 4, strategy)
        base = predict(plan, SETTING).total_us
        for better in (
            WhatIf(link_bandwidth=2.0), WhatIf(link_latency=0.5), WhatIf(kernel_speed=2.0)
        ):  # fmt: skip
            setting = replace(SETTING, profile=better.profile(H100))
            assert predict(plan, setting).total_us <= base * (1 + 1e-9)


def test_twice_the_bandwidth_halves_the_transfer_of_a_large_message():
    faster = WhatIf(link_bandwidth=2.0).profile(H100)
    size = 2**30
    latency = H100.collectives.curve("all_gather", 8).latency_us
    before = H100.collective_us("all_gather", size, 8).us
    after = faster.collective_us("all_gather", size, 8).us
    assert after - latency == pytest.approx((before - latency) / 2, rel=0.02)


def test_kept_tokens_are_what_each_exchange_leaves_on_a_rank():
    pack = [16_384] * 4
    assert kept_tokens(shard(pack, 4, "per-doc")) == 3 * 16_384
    assert kept_tokens(shard(pack, 4, "ring")) == 2 * 16_384
    assert kept_tokens(shard(pack, 4, "flashcp")) == 0  # whole documents stay where they are
    assert kept_tokens(shard(pack, 1, "per-doc")) == 0


def test_the_summary_is_best_first_and_its_causes_add_up():
    simulated = simulate(sweep(cp=[2, 4, 8]), engine=LocalEngine(1))
    rows = summarise(simulated, StepModel(recompute="none"), {"h100-sxm": 1e12})
    rates = [row.tokens_per_s_gpu for row in rows]
    assert rates == sorted(rates, reverse=True)
    for row in rows:
        causes = sum(row.losses.to_json().values())
        assert causes == pytest.approx(row.total_us.value, rel=1e-9)
        assert row.fits is True
        # A step dilutes an attention speed-up; it never adds to one.
        if row.speedup.value > 1:
            assert 1 < row.step_speedup.value < row.speedup.value
    baseline = [row for row in rows if row.strategy == "per-seq"]
    assert all(row.speedup.value == 1 for row in baseline)
    assert all("ms b" in row.reason for row in rows)


def test_one_strategy_is_compared_over_its_settings():
    what_ifs = [WhatIf(), WhatIf(kernel_speed=2.0)]
    one = sweep(strategies=("per-doc",), cp=[4], what_ifs=what_ifs)
    fast, base = summarise(simulate(one, engine=LocalEngine(1)), StepModel(), {})
    assert base.speedup.value == 1
    assert base.reason == "as the first settings"
    assert fast.configuration.kernel_speed == 2
    assert fast.speedup.value == pytest.approx(base.total_us.value / fast.total_us.value)
    assert "ms before the first settings: less work a rank or faster kernels" in fast.reason


def test_what_does_not_fit_comes_last_with_its_figure():
    simulated = simulate(sweep(strategies=("per-seq", "flashcp")), engine=LocalEngine(1))
    rows = summarise(simulated, StepModel(), {"h100-sxm": 80e9})
    between = sorted(row.memory.total_bytes for row in rows)[1:3]
    rows = summarise(simulated, StepModel(), {"h100-sxm": sum(between) / 2})
    assert [row.fits for row in rows] == [True, True, False, False]


def test_balanced_packs_make_steps_of_replicas_faster():
    rows = {}
    for by in ("concat", "balanced"):
        one = sweep(traces=[load("code")], pack_by=[by], replicas=4, packs=40, cp=[4],
                    context_tokens=[65_536], strategies=("per-doc",))  # fmt: skip
        simulated = simulate(one, engine=LocalEngine(1))
        (row,) = summarise(simulated, StepModel(replicas=4), {})
        rows[by] = row.step_us.value / simulated.rows["tokens"].mean()
    assert rows["balanced"] < rows["concat"]


def test_nothing_that_fits_is_refused_with_what_would():
    large = sweep(models=[load_model("llama3-405b")], context_tokens=[131_072], cp=[8])
    with pytest.raises(PlanError, match=r"needs \d+ GB a GPU of 80; --cp \d+ would fit"):
        require_fit(large, StepModel(), capacities(large, None))
    require_fit(large, StepModel(), capacities(large, 5_000.0))
    small = sweep(context_tokens=[131_072], cp=[8])
    for step, capacity_gb, way in (
        (StepModel(recompute="none"), None, "--recompute mlp"),
        (StepModel(recompute="none"), 30.0, "--recompute full"),
        (StepModel(state_sharding="optimizer"), 40.0, "--state-sharding full"),
        (StepModel(), 20.0, "--cp 16"),
    ):
        with pytest.raises(PlanError, match=f"; {way} would fit"):
            require_fit(small, step, capacities(small, capacity_gb))
    heads = sweep(models=[load_model("paper-h32")])
    require_fit(heads, StepModel(), capacities(heads, 0.001))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"cp": []}, "empty: cp has no values"),
        ({"strategies": ["per-docs"]}, "'per-docs' is unknown"),
        ({"cp": [0]}, "CP degree 0"),
        ({"traces": [load("papers"), load("papers")]}, "papers twice"),
        ({"replicas": 8, "packs": 5}, "5 packs are not enough for one step of 8 replicas"),
        ({"strategies": ["ring"], "what_ifs": [WhatIf(exchange="needed")]}, "rings have one way"),
        ({"plan_effort": -1.0}, r"plan effort -1\.0 is not in"),
        ({"balance": "tokens"}, "balance 'tokens' is unknown; there are: work, time"),
        ({"tensor_parallel": [3]}, "degree 3 does not divide the 32:8 heads"),
    ],
)
def test_contradictions_are_refused_before_any_work(changes, match):
    with pytest.raises(PlanError, match=match):
        sweep(**changes)


def test_too_few_packs_for_a_step_are_refused():
    tiny = Trace("tiny", np.array([100, 200], np.int32))
    with pytest.raises(PlanError, match=r"makes 1 packs .* fewer than one step of 4 replicas"):
        simulate(sweep(traces=[tiny], replicas=4, packs=8), engine=LocalEngine(1))


def test_factors_out_of_range_are_refused():
    with pytest.raises(PlanError, match=r"link_bandwidth 0\.0 is not a factor"):
        WhatIf(link_bandwidth=0.0)
