"""Emulated timelines have a prediction's structure: they differ from it in nothing but times."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from costmodel.model_shape import load_model
from costmodel.profile_file import load_profile
from costmodel.timeline import Kind, Stream
from executor import prepare
from executor.composed import compose, exchange_us
from executor.emulate import Emulation
from executor.joined import ALL, OWN, PREFIXES
from executor.kernels.cpu import CpuKernel
from executor.record import Recorder
from executor.rows_of_ranks import rank_parts
from flashcp.exchange import Exchange
from flashcp.prediction import Setting, predict
from tests.executor.packs import all_plans, random_lengths, scattered_plan


@pytest.fixture(scope="module")
def setting():
    """Nothing slows anything: the slowing of what was slowed already would count twice."""
    profile = load_profile("h100-sxm")
    same = {
        name: replace(getattr(profile, name), value=1.0)
        for name in ("overlap_factor", "exchange_overlap_factor")
    }
    return Setting(replace(profile, **same), load_model("llama3-8b"), copies="in-place")


def predicted_pieces(prediction, ranks):
    """What each rank would have measured, forward and backward, were predictions exact."""
    split = sum(
        float(e.start_us.min()) < prediction.forward_total_us for e in prediction.timeline.entries
    )
    found = []
    for entries in (prediction.timeline.entries[:split], prediction.timeline.entries[split:]):
        times, step = [{} for _ in range(ranks)], 0
        for entry in entries:
            name = entry.name
            if entry.kind is Kind.EXCHANGE:
                continue
            if name.startswith("attention, step"):
                step = int(name.rsplit(" ", 1)[1])
            if name == "merge":
                name = f"merge, step {step}"
            for rank, us in enumerate(entry.end_us - entry.start_us):
                # Of parts, one after another, that have one name, all of them together.
                times[rank][name] = times[rank].get(name, 0.0) + float(us)
        found.append(times)
    return found, split


@pytest.mark.parametrize("seed", range(6))
def test_with_predicted_times_the_emulated_timeline_is_the_predicted_one(setting, seed):
    rng = np.random.default_rng(seed)
    cp = 2 + seed % 4
    lengths = np.append(random_lengths(rng) * 300, np.int32(3000)).astype(np.int32)
    for plan in all_plans(rng, lengths, cp):
        setting = replace(setting, ranks_per_node=plan.ranks_per_node)
        prediction = predict(plan, setting)
        (forward, backward), split = predicted_pieces(prediction, cp)
        line, entries = compose(plan, setting, forward, backward)
        assert line.total_us == pytest.approx(prediction.total_us, rel=1e-9), plan.exchange
        found, wanted = rank_parts(line, entries), rank_parts(prediction.timeline, split)
        for one, other in zip(found, wanted, strict=True):
            for direction in ("forward", "backward"):
                assert one[direction] == pytest.approx(other[direction], rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("parts", [1, 2])
def test_prefixes_wait_for_the_exchange_that_own_keys_hide_and_home_comes_first(setting, parts):
    lengths = np.array([9000, 3000, 500], dtype=np.int32)
    rng = np.random.default_rng(1)
    for exchange in (Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL):
        plan = scattered_plan(rng, lengths, 4, exchange, overlap=True)
        plan = replace(plan, head_chunks=parts)
        setting = replace(setting, ranks_per_node=plan.ranks_per_node)
        forward = [{OWN: 1e4, PREFIXES: 30.0, "merge outputs": 2.0} for _ in range(4)]
        backward = [
            {PREFIXES: 60.0, OWN: 2e4, "add dQ": 3.0, "add dKV": 4.0, "sum dKV of the node": 5.0}
            for _ in range(4)
        ]
        line, split = compose(plan, setting, forward, backward)
        # The exchange takes far less than own keys, so that it costs nothing.
        assert exchange_us(plan, setting) < 1e4
        assert line.total_us == pytest.approx(1e4 + 30 + 2 + 60 + 2e4 + 3 + 4)
        names = [e.name for e in line.entries if e.stream is Stream.COMPUTE and e.end_us.any()]
        ran = [name for name in names if name.startswith(("attention", "merge", "add"))]
        there, home = [PREFIXES, "merge outputs"] * parts, [PREFIXES] * parts
        assert ran == [OWN, *there, *home, OWN, "add dQ", *(["add dKV"] * parts)]
        assert 0 < split < len(line.entries)


def test_a_slower_exchange_is_exposed_by_what_own_keys_do_not_hide(setting):
    lengths = np.array([9000, 3000, 500], dtype=np.int32)
    plan = scattered_plan(
        np.random.default_rng(1), lengths, 4, Exchange.ALL_TO_ALL_NEEDED, overlap=True
    )
    plan = replace(plan, bundled=True)  # else the host, which posts pieces, takes longer
    times = [{OWN: 1.0, PREFIXES: 30.0} for _ in range(4)]
    line, entries = compose(plan, setting, times, times)
    exposed = [
        sum(parts[d]["exchange"] for d in ("forward", "backward"))
        for parts in rank_parts(line, entries)
    ]
    assert exposed == pytest.approx([exchange_us(plan, setting) - 2.0] * 4)


class Names(Recorder):
    """Keeps what is recorded."""

    def __init__(self):
        self.names = set()

    @contextmanager
    def piece(self, part, name):
        self.names.add((part.value, name))
        yield


def test_every_piece_that_is_recorded_has_its_place_on_the_timeline(setting):
    rng, recorded = np.random.default_rng(3), set()
    for cp in (2, 4, 4):
        lengths = random_lengths(rng)
        for plan in all_plans(rng, lengths, cp):
            setting = replace(setting, ranks_per_node=plan.ranks_per_node)
            records = [Names() for _ in range(cp)]
            q, k = (
                [torch.zeros(t, heads, 8) for t in plan.rank_tokens.tolist()] for heads in (2, 1)
            )
            handles = [prepare(plan, rank) for rank in range(cp)]
            emulation = Emulation(handles, CpuKernel(), 1.0, records)
            emulation.forward(q, k, k)
            there = set().union(*(one.names for one in records))
            for one in records:
                one.names = set()
            emulation.backward(q)
            home = set().union(*(one.names for one in records))
            line, split = compose(plan, setting, *[[{} for _ in range(cp)]] * 2)
            for names, entries in ((there, line.entries[:split]), (home, line.entries[split:])):
                placed = {(e.kind.value, e.name) for e in entries}
                assert names <= placed, (plan.exchange, names - placed)
            recorded |= {name for _, name in there | home}
    assert {OWN, PREFIXES, ALL, "merge outputs", "add dQ", "sum dKV of the node"} <= recorded
