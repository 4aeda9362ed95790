"""One rank by itself: the same call, with a process group or without any."""

import numpy as np
import pytest
import torch

from executor import RunError, attention, prepare, shard
from executor.kernels import ORACLE, relative_error
from flashcp.strategies import shard as make_plan
from tests.executor.packs import all_plans, random_lengths
from tests.executor.test_ranks import alone, draw


@pytest.mark.parametrize("seed", range(4))
def test_one_rank_needs_no_process_group(seed):
    rng = np.random.default_rng(seed)
    lengths = random_lengths(rng)
    inputs = draw(lengths, (4, 2, 8), seed)
    true = alone(ORACLE, lengths, *inputs)
    for plan in all_plans(rng, lengths, 1):
        handle = prepare(plan, 0)
        local = [shard(x, plan, 0).requires_grad_() for x in inputs[:3]]
        for _ in range(2):
            out = attention(*local, handle)
            gradients = torch.autograd.grad(out, local, shard(inputs[3], plan, 0))
            for one, exact in zip((out.detach(), *gradients), true, strict=True):
                assert relative_error(one, shard(exact, plan, 0)) <= 1e-10


def test_several_ranks_need_one():
    lengths = np.array([40, 24], dtype=np.int32)
    plan = make_plan(lengths, 4, "per-doc")
    q, k, v, _ = (shard(x, plan, 0) for x in draw(lengths, (4, 2, 8), 0))
    with pytest.raises(RunError) as error:
        attention(q, k, v, prepare(plan, 0))
    assert str(error.value) == (
        "rank 0: a plan for 4 ranks needs a process group and there is none; call "
        "torch.distributed.init_process_group, or plan with cp=1"
    )
