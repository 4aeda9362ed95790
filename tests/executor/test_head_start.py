"""A GPU's head start, with stand-ins for its calls: how long it spins; a CPU never does."""

from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist

from executor.head_start import HeadStart


@pytest.fixture
def gpu(monkeypatch):
    """Spins that a device was asked for, in cycles, where another rank's host took 8 ms."""
    spins = []

    def all_reduce(tensor, op, group):
        assert op is dist.ReduceOp.MAX
        assert group == "group"
        tensor.clamp_(min=8000.0)

    real = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda values, device: real(values))
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "_sleep", spins.append)
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    return spins


def test_a_device_spins_for_longer_than_the_slowest_ranks_host_took_once_ranks_agree(gpu):
    ahead = HeadStart(torch.device("cuda", 0))
    ahead.give()
    with ahead.queueing():
        pass
    assert 0 < ahead.host_us < 8000
    assert gpu == []  # nothing is known of other ranks yet
    ahead.agree("group")
    ahead.give()
    assert gpu == [12_000 * 2000]


def test_a_cpu_does_the_work_itself_and_has_no_head_start(gpu):
    ahead = HeadStart(torch.device("cpu"))
    ahead.give()
    with ahead.queueing():
        pass
    ahead.agree("group")
    ahead.give()
    assert ahead.host_us is None
    assert gpu == []
