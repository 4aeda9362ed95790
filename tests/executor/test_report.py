"""Emulated runs, what is set beside what, bytes and memory, and the picture."""

import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from costmodel.calibrated_prior import cpu_prior
from costmodel.model_shape import ModelShape
from costmodel.profile_file import load_profile
from executor import RunError, memory_bytes, prepare, shard, worker
from executor import verify as verification
from executor.emulate import Emulation
from executor.emulated import emulate_job
from executor.inputs import Inputs
from executor.job import Job, Options
from executor.kernels.cpu import CpuKernel
from executor.picture import chrome_trace
from executor.report import is_comparable, report
from flashcp.exchange import Exchange
from flashcp.prediction import Setting, predict
from flashcp.strategies import STRATEGIES
from flashcp.strategies import shard as make_plan

LENGTHS = np.array([300, 120, 60, 20], dtype=np.int32)
MODEL = ModelShape(name="small", q_heads=4, kv_heads=2, head_dim=16, dtype="float32")


def make_job(names=("per-doc", "zigzag", "flashcp"), **options):
    plans = [make_plan(LENGTHS, 3, name) for name in names]
    plans.append(replace(plans[-1], exchange=Exchange.ALL_TO_ALL_NEEDED, overlap=True))
    settings = {"dtype": "float32", "device": "cpu", "warmups": 0, "repetitions": 3, **options}
    return Job(names=(*names, "auto"), plans=tuple(plans), model=MODEL, options=Options(**settings))


@pytest.fixture(scope="module")
def setting():
    return Setting(profile=load_profile("h100-sxm"), model=MODEL, copies="in-place")


@pytest.fixture(scope="module")
def results(setting):
    return emulate_job(make_job(), setting)


def test_an_emulated_run_says_so_and_takes_its_exchange_from_the_profile(results, setting):
    assert results["environment"]["emulated"]
    assert results["environment"]["exchange_from"] == "h100-sxm"
    job = make_job()
    for name, plan in zip(job.names, job.plans, strict=True):
        entries = predict(plan, setting).timeline.entries
        exchanged = [e for e in entries if e.stream == "exchange"]
        assumed = sum(float((e.end_us - e.start_us).max()) for e in exchanged)
        assert results["plans"][name][0]["exchange_us"] == pytest.approx(assumed)


@pytest.mark.parametrize("threads", [1, 2])
def test_emulated_ranks_have_the_threads_of_the_profiles_ranks(setting, monkeypatch, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("executor.device.visible_devices", lambda _: 2)
    monkeypatch.setattr("executor.emulated.visible_devices", lambda _: 2)
    before = torch.get_num_threads()
    cpu = replace(setting, profile=replace(setting.profile, attention=cpu_prior(threads)))
    try:
        results = emulate_job(make_job(("per-doc",), repetitions=1), cpu)
        assert results["environment"]["threads"] == threads
        assert torch.get_num_threads() == 2  # all cores again
    finally:
        torch.set_num_threads(before)


def test_every_rank_is_measured_and_its_parts_make_up_its_total(results):
    for rows in results["plans"].values():
        assert [row["rank"] for row in rows] == [0, 1, 2]
        for row in rows:
            for direction in ("forward", "backward"):
                parts = row["parts"][direction]
                for repetition in range(3):
                    total = sum(parts[part][repetition] for part in parts)
                    assert total == pytest.approx(row[f"{direction}_us"][repetition])
                assert parts[direction][0] > 0
        assert rows[0]["verification"]["passed"]


def test_a_report_sets_each_part_beside_its_prediction(results, setting):
    found = report(make_job(), results, setting)
    assert not found["comparable"]
    for one in found["plans"].values():
        assert one["errors"] is None
        assert one["passed"]
        assert one["sent_as_planned"]
        for rank in one["ranks"]:
            measured = rank["measured_us"]
            assert measured["forward"] > 0
            assert measured["backward"] > 0
            assert rank["spread_us"][0] <= measured["total"] <= rank["spread_us"][1]
            assert rank["predicted_us"]["forward"] > 0
    winner = found["winner"]
    fastest = min(one["measured_us"] for one in found["plans"].values())
    assert found["plans"][winner["measured"]]["measured_us"] == fastest
    assert winner["won"] == (winner["behind"] == 0)


def test_the_predicted_time_is_the_predictions_own(results, setting):
    job = make_job()
    found = report(job, results, setting)
    for name, plan in zip(job.names, job.plans, strict=True):
        total = predict(plan, setting).total_us
        assert found["plans"][name]["predicted_us"] == pytest.approx(total, rel=1e-6)


def test_errors_are_signed_where_the_device_is_the_profiles(results, setting):
    there = {**results, "environment": {**results["environment"], "device_type": "cuda",
                                        "device": "NVIDIA H100 80GB HBM3"}}  # fmt: skip
    found = report(make_job(), there, setting)
    assert found["comparable"]
    for one in found["plans"].values():
        # A CPU is slower than was predicted for a GPU: what is predicted falls short.
        assert -1 < one["errors"]["slowest rank"] < 0
        assert all(-1 < rank["total"] < 0 for rank in one["errors"]["ranks"])


@pytest.mark.parametrize(
    ("device", "kind", "same"),
    [
        ("NVIDIA H100 80GB HBM3", "cuda", True),
        ("NVIDIA H200", "cuda", False),
        ("NVIDIA A100-SXM4-80GB", "cuda", False),
        ("H100 in name only", "cpu", False),
    ],
)
def test_only_the_profiles_device_is_comparable(setting, device, kind, same):
    assert is_comparable({"device": device, "device_type": kind}, setting) is same


def test_a_wrong_result_does_not_pass(setting, monkeypatch):
    class Wrong(CpuKernel):
        def forward(self, *args, **kwargs):
            out, lse = super().forward(*args, **kwargs)
            return out.mul_(1.001), lse

    monkeypatch.setattr("executor.emulated.select", lambda *_: Wrong())
    found = report(make_job(), emulate_job(make_job(repetitions=1), setting), setting)
    assert not any(one["passed"] for one in found["plans"].values())


def test_a_result_that_is_not_finite_does_not_pass_and_survives_json(setting, monkeypatch):
    class Endless(CpuKernel):
        def forward(self, *args, **kwargs):
            out, lse = super().forward(*args, **kwargs)
            return out.div_(0.0), lse

    monkeypatch.setattr("executor.emulated.select", lambda *_: Endless())
    found = report(make_job(), emulate_job(make_job(repetitions=1), setting), setting)
    assert not any(one["passed"] for one in found["plans"].values())
    json.dumps(found, allow_nan=False)


def test_a_leak_between_documents_does_not_pass(setting, monkeypatch):
    class Leaky(CpuKernel):
        def forward(self, q, k, v, segments, scale, *, out=None):
            out, lse = super().forward(q, k, v, segments, scale, out=out)
            return out.add_(1e-12 * v.sum()), lse

    monkeypatch.setattr("executor.emulated.select", lambda *_: Leaky())
    results = emulate_job(make_job(repetitions=1, dtype="float64"), setting)
    for rows in results["plans"].values():
        assert rows[0]["verification"]["leaked"] > 0
        assert not rows[0]["verification"]["passed"]


def test_the_picture_holds_measured_beside_predicted_for_every_rank(results, setting):
    job = make_job()
    events = chrome_trace(job, results, setting)["traceEvents"]
    titles = [e["args"]["name"] for e in events if e["name"] == "process_name"]
    assert titles == [
        f"{name}, rank {rank}, {what}"
        for name in job.names
        for rank in range(3)
        for what in ("measured", "predicted")
    ]
    spans = [event for event in events if event["ph"] == "X"]
    assert {event["pid"] for event in spans} == set(range(len(titles)))
    assert all(event["dur"] > 0 for event in spans)
    assert {event["cat"] for event in spans} >= {"forward", "backward", "exchange", "copies"}
    # On no track does one thing begin before another has ended, which viewers cannot draw.
    tracks = {}
    for event in sorted(spans, key=lambda event: event["ts"]):
        before = tracks.get((event["pid"], event["tid"]), 0.0)
        assert event["ts"] >= before - 1e-6, event
        tracks[event["pid"], event["tid"]] = event["ts"] + event["dur"]
    assert {tid for _, tid in tracks} == {0, 1, 2}  # some of them post messages


class Live(TorchDispatchMode):
    """Counts the bytes of storages that some tensor made inside still holds."""

    def __init__(self):
        super().__init__()
        self.holders, self.sizes, self.most = {}, {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                self.holders[key] = self.holders.get(key, 0) + 1
                self.sizes[key] = storage.nbytes()
                weakref.finalize(tensor, self.drop, key)
        held = sum(self.sizes[key] for key, holders in self.holders.items() if holders)
        self.most = max(self.most, held)
        return result

    def drop(self, key):
        self.holders[key] -= 1


PARTS = ["needed-only in parts", "two levels in parts"]


@pytest.mark.parametrize("name", [*STRATEGIES, "needed-only", "two levels", *PARTS])
def test_estimated_memory_is_near_what_tensors_take(name):
    lengths = np.array([900, 300, 200, 100], dtype=np.int32)
    plan = make_plan(lengths, 4, name if name in STRATEGIES else "flashcp")
    if name.startswith("needed-only"):
        plan = replace(plan, exchange=Exchange.ALL_TO_ALL_NEEDED, overlap=True)
    if name.startswith("two levels"):
        two = Exchange.ALL_TO_ALL_TWO_LEVEL
        plan = replace(plan, exchange=two, overlap=True, ranks_per_node=2)
    plan = replace(plan, head_chunks=2 if name in PARTS else 1)
    model = ModelShape(name="m", q_heads=4, kv_heads=2, head_dim=64, dtype="float32")
    handles = [prepare(plan, rank) for rank in range(4)]
    with Live() as live:
        q, dout = (torch.zeros(1500, 4, 64) for _ in range(2))
        k, v = (torch.zeros(1500, 2, 64) for _ in range(2))
        local = [[shard(x, plan, rank) for rank in range(4)] for x in (q, k, v, dout)]
        del q, k, v, dout
        emulation = Emulation(handles, CpuKernel(), 0.1)
        emulation.forward(*local[:3])
        emulation.backward(local[3])
    # The estimate allows each rank a flash kernel's dQ in float32, which torch does not show us.
    estimate = int(memory_bytes(plan, model).sum())
    assert 0.6 * estimate <= live.most <= 1.1 * estimate, live.most / estimate


@pytest.mark.parametrize(("most_flops", "heads"), [(0, 4), (6.5, 4), (8, 4), (100, 12)])
def test_kv_that_travels_in_parts_is_checked_in_as_many(most_flops, heads, monkeypatch):
    """Twelve KV heads in four parts; operations as a multiple of one head's."""
    plan = make_plan(np.array([100], dtype=np.int32), 2, "flashcp")
    plan = replace(plan, exchange=Exchange.ALL_TO_ALL_NEEDED, overlap=True, head_chunks=8)
    inputs = Inputs(*(torch.zeros(100, n, 8) for n in (24, 12, 12, 24)))
    flops = 5050 * 14 * 8 * 2 * most_flops
    monkeypatch.setitem(verification._MOST_FLOPS, "cpu", flops)
    assert verification.checked_heads(plan, inputs) == heads
    assert plan.chunks(heads) == plan.chunks(12) == 4


@pytest.mark.parametrize("kv_heads", [2, 8])
def test_a_backward_of_shared_heads_holds_gradients_of_every_query_head(kv_heads):
    """One rank, 1,000 tokens: nothing travels, so the difference is the kernel's own."""
    plan = make_plan(np.array([1000], dtype=np.int32), 1, "flashcp")
    model = ModelShape(name="m", q_heads=8, kv_heads=kv_heads, head_dim=64)
    q_bytes, kv_bytes = 8 * 64 * 2, 2 * kv_heads * 64 * 2
    tensors = 4 * q_bytes + 2 * kv_bytes + 4 * 8 + 2 * q_bytes
    held = 2 * q_bytes if kv_heads < 8 else 0
    assert memory_bytes(plan, model).tolist() == [1000 * (tensors + held)]


def test_a_plan_that_runs_out_of_memory_is_left_out_with_the_figure(setting, monkeypatch):
    from executor import emulated

    def full(plan, *_):
        if plan.strategy == "zigzag":
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")
        return original(plan, *_)

    original = emulated.emulate_plan
    monkeypatch.setattr(emulated, "emulate_plan", full)
    found = report(make_job(), emulate_job(make_job(repetitions=1), setting), setting)
    assert "zigzag" not in found["plans"]
    assert found["skipped"]["zigzag"].startswith("out of memory; all ranks together take up to 0.0")
    monkeypatch.setattr(emulated, "emulate_plan", lambda *_: full(make_job().plans[1]))
    with pytest.raises(RunError, match="no plan fits cpu: out of memory"):
        emulate_job(make_job(), setting)


def test_a_plan_beyond_a_ranks_memory_is_refused_before_it_runs(monkeypatch):
    monkeypatch.setattr(worker, "device_memory", lambda _: 1000)
    with pytest.raises(RunError, match=r"per-doc needs about 0\.0 GiB on rank 1 where 0\.0 GiB of"):
        worker.check_memory(make_job(), 1, torch.device("cpu"))
