"""Where torch is asked for deterministic algorithms, it fills new memory with NaN: none is read."""

import numpy as np
import pytest
import torch

from executor import prepare, shard, unshard
from executor.emulate import Emulation
from executor.kernels import ORACLE, relative_error, select
from tests.executor.packs import all_plans, random_lengths
from tests.executor.test_ranks import alone, draw


@pytest.mark.parametrize("seed", range(4))
def test_every_plan_runs_by_deterministic_algorithms_alone_and_is_the_same_again(seed):
    rng = np.random.default_rng(seed)
    lengths = random_lengths(rng)
    inputs = draw(lengths, (4, 2, 8), seed)
    true = alone(ORACLE, lengths, *inputs)
    torch.use_deterministic_algorithms(True)
    try:
        for plan in all_plans(rng, lengths, 4):
            runs = []
            for _ in range(2):
                handles = [prepare(plan, rank) for rank in range(4)]
                emulation = Emulation(
                    handles, select(torch.device("cpu"), inputs[0].dtype, 8), 8**-0.5
                )
                q, k, v, dout = ([shard(x, plan, rank) for rank in range(4)] for x in inputs)
                outs = emulation.forward(q, k, v)
                results = zip(outs, *zip(*emulation.backward(dout), strict=True), strict=True)
                runs.append([unshard(list(x), plan) for x in zip(*results, strict=True)])
            for one, again, exact in zip(*runs, true, strict=True):
                assert relative_error(one, exact) <= 1e-10
                assert torch.equal(one, again)
    finally:
        torch.use_deterministic_algorithms(False)
