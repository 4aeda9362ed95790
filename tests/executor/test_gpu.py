"""On a GPU: emulated ranks against the oracle in every dtype, and over NCCL where GPUs allow it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from costmodel.model_shape import ModelShape
from costmodel.profile_file import load_profile
from executor.emulated import emulate_job
from executor.fused import find
from executor.job import Job, Options
from executor.kernels import relative_error
from executor.launch import launch
from executor.report import report
from executor.rows import Sums
from flashcp.prediction import Setting
from tests.executor.packs import all_plans

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
LENGTHS = np.array([3000, 1500, 700, 300, 40, 1], dtype=np.int32)


def job(dtype, cp):
    plans = [
        replace(plan, ranks_per_node=per_node(cp)) if plan.ranks_per_node else plan
        for plan in all_plans(np.random.default_rng(0), LENGTHS, cp)
    ]
    model = ModelShape(
        name="small", q_heads=8, kv_heads=2, head_dim=64,
        dtype="float32" if dtype == "float64" else dtype,
    )  # fmt: skip
    return Job(
        names=tuple(f"{index} {plan.strategy}" for index, plan in enumerate(plans)),
        plans=tuple(plans),
        model=model,
        options=Options(dtype=dtype, device="cuda", warmups=1, repetitions=2),
    )


def per_node(cp):
    """Ranks of a node in two-level plans: one setting serves all plans of a job."""
    return 2 if cp % 2 == 0 else 1


def setting_of(job):
    return Setting(
        profile=load_profile("h100-sxm"), model=job.model, copies="in-place",
        ranks_per_node=per_node(job.cp),
    )  # fmt: skip


def check(job, results):
    found = report(job, results, setting_of(job))
    wrong = {name: one["verification"] for name, one in found["plans"].items() if not one["passed"]}
    assert not wrong


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("cp", [1, 4])
def test_every_plan_emulated_on_the_gpu_agrees_with_the_oracle(dtype, cp):
    one = job(dtype, cp)
    check(one, emulate_job(one, setting_of(one)))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_plan_over_nccl_agrees_with_the_oracle(dtype):
    one = job(dtype, min(torch.cuda.device_count(), 4))
    check(one, launch(one))


def test_rows_are_moved_in_one_pass():
    device = torch.device("cuda", torch.cuda.current_device())
    kernels, name = find(device)
    assert kernels is not None, name
    generator = torch.Generator(device).manual_seed(0)
    target, back = (
        torch.randn(n, 8, 128, generator=generator, device=device).bfloat16() for n in (3000, 5000)
    )
    rng = np.random.default_rng(0)
    sums = Sums.of(device, (rng.integers(0, 3000, 5000), np.arange(5000)))
    expected = target.double()
    meets = torch.from_numpy(np.repeat(sums.named[0], np.diff(sums.named[1]))).to(device)
    expected.index_add_(0, meets, back.double()[torch.from_numpy(sums.named[2]).to(device)])
    sums.add(target, back)
    assert relative_error(target, expected) <= 4e-3
