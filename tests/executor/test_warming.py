"""Warming up calls all that a training step would otherwise be the first to compile."""

import pytest
import torch
import torch.distributed as dist

import executor
from executor import RunError, bundled, joined, landed, own_rows, rows
from executor.kernels.cpu import CpuKernel
from tests.executor.ranks import run_ranks

HEADS = {"q_heads": 4, "kv_heads": 2, "head_dim": 8}


def test_one_rank_needs_no_group():
    assert executor.warm_up("cpu", torch.float32, **HEADS) == CpuKernel.name
    with torch.no_grad():
        assert executor.warm_up("cpu", torch.bfloat16, **HEADS) == CpuKernel.name
    with pytest.raises(RunError, match="3 KV heads do not divide 4 query heads"):
        executor.warm_up("cpu", torch.float32, q_heads=4, kv_heads=3, head_dim=8)


def test_every_kernel_is_called_on_every_rank():
    for ranks in (2, 3):
        run_ranks(everything, ranks)


def everything(rank):
    called = set()

    def watched(function, name, of=lambda *_: True):
        def call(*arguments, **more):
            if of(*arguments):
                called.add(name)
            return function(*arguments, **more)

        return call

    def by_index(_, to, __, taken):  # what a GPU copies by a kernel of its own
        return isinstance(to, torch.Tensor) and isinstance(taken, torch.Tensor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joined, "merge", watched(joined.merge, "merge"))
        patch.setattr(rows.Sums, "add", watched(rows.Sums.add, "add"))
        patch.setattr(rows.Sums, "write", watched(rows.Sums.write, "write"))
        for module in (bundled, own_rows, landed):
            patch.setattr(module, "move", watched(module.move, "copy", by_index))
        for name in ("forward", "backward"):
            patch.setattr(CpuKernel, name, watched(getattr(CpuKernel, name), name))
        executor.warm_up("cpu", torch.float32, **HEADS, group=dist.group.WORLD)
    assert called == {"merge", "add", "write", "copy", "forward", "backward"}, called
