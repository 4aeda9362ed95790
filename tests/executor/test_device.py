"""Which GPU a rank takes, and how many ranks share its node, by whatever started them."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from executor import RunError
from executor.calibration import groups
from executor.device import group_options, local_device, ranks_here

VARIABLES = (
    *("LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE", "SLURM_JOB_ID"),
    *("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "CUDA_VISIBLE_DEVICES"),
    *("RANK", "WORLD_SIZE", "NCCL_HOSTID", "NCCL_MULTI_RANK_GPU_ENABLE"),
)


@pytest.fixture
def started(monkeypatch):
    """Set a rank's environment and the GPUs it sees; return the GPU that it takes."""

    def start(gpus, **environment):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        taken = []
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "set_device", taken.append)
        device = local_device("cuda")
        assert taken == [device.index]
        return device.index

    return start


def test_a_rank_takes_the_gpu_of_its_number_on_the_node(started):
    assert started(8) == 0
    assert started(8, RANK="11", WORLD_SIZE="16", LOCAL_RANK="3") == 3
    assert started(8, RANK="11", WORLD_SIZE="16", SLURM_LOCALID="5") == 5
    assert started(8, RANK="11", WORLD_SIZE="16", OMPI_COMM_WORLD_LOCAL_RANK="6") == 6


def test_a_rank_that_is_shown_one_gpu_takes_it(started):
    shown = {"SLURM_JOB_ID": "7", "SLURM_LOCALID": "3", "CUDA_VISIBLE_DEVICES": "3"}
    assert started(1, RANK="3", WORLD_SIZE="8", **shown) == 0


def test_a_rank_without_a_gpu_of_its_own_is_refused(started):
    with pytest.raises(RunError, match="rank 1 of this node has no GPU: torch sees 1"):
        started(1, RANK="1", WORLD_SIZE="2", LOCAL_RANK="1", CUDA_VISIBLE_DEVICES="0")
    with pytest.raises(RunError, match="this is rank 3 of 8, but LOCAL_RANK is not set"):
        started(8, RANK="3", WORLD_SIZE="8")


def test_ranks_of_a_node_are_counted_by_what_started_them(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert ranks_here(16) == 16
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "8")
    assert ranks_here(16) == 8
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "8(x2)")
    assert ranks_here(16) == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert ranks_here(16) == 4
    assert ranks_here(2) == 2


class NcclOptions(SimpleNamespace):
    _timeout = None


def test_nccl_goes_before_attention_in_every_group_by_options_of_its_own(monkeypatch):
    nccl = SimpleNamespace(Options=NcclOptions)
    monkeypatch.setattr(dist, "ProcessGroupNCCL", nccl, raising=False)
    cuda, cpu = torch.device("cuda", 0), torch.device("cpu")
    made = []
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "new_group", lambda *_, **options: made.append(options))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert len(groups.groups_of(8, cuda)) == 3
    over_nccl = [one["pg_options"] for one in made if one.get("backend") != "gloo"]
    assert [one.is_high_priority_stream for one in over_nccl] == [True] * 3
    assert len({id(one) for one in over_nccl}) == 3  # torch writes each group's name into its own
    limit = timedelta(seconds=9)
    assert group_options(cuda, limit)._timeout == limit
    assert group_options(cpu, limit) is None
