"""The device that a rank runs on, and what a report has to say of it."""

import os
import platform
from datetime import UTC, datetime, timedelta
from typing import Any

import torch
import torch.distributed as dist

from executor.errors import RunError
from executor.fused import find


def default_device() -> str:
    """Return "cuda" where torch has a GPU to use, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def visible_devices(device: str) -> int:
    """Return how many GPUs this process sees, or for "cpu" how many cores it may use."""
    if device == "cuda":
        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares_gpus() -> bool:
    """Tell whether NCCL is let, or led, to put several ranks on one GPU.

    NCCL 2.30 and newer do so where asked; older ones where every rank claims a host of its own.
    """
    return os.environ.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1" or "NCCL_HOSTID" in os.environ


def ranks_here(ranks: int) -> int:
    """Return how many of `ranks` run on this node, as torchrun or the job's scheduler says."""
    said = _first_number("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE")
    return ranks if said is None else min(said, ranks)


def _first_number(*names: str) -> int | None:
    """Return the first of some variables of the environment that is a number, if one is."""
    found = (os.environ.get(name, "") for name in names)
    return next((int(said) for said in found if said.isdecimal()), None)


def _local_rank() -> int:
    """Return this rank's number on its node.

    Raises:
        RunError: it is one of several ranks, and nothing says which.
    """
    said = _first_number("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")
    if said is not None:
        return said
    ranks = os.environ.get("WORLD_SIZE", "1")
    if ranks != "1":
        raise RunError(
            f"this is rank {os.environ.get('RANK', '?')} of {ranks}, but LOCAL_RANK is not set, "
            "which says its GPU; set it to the rank's number on its node"
        )
    return 0


def _sees_its_own() -> bool:
    """Tell whether a scheduler shows this rank one GPU, which others of the node do not see."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return bool(shown) and "," not in shown and "SLURM_JOB_ID" in os.environ


def local_device(device: str) -> torch.device:
    """Return this rank's device and make it the current one.

    Where a scheduler shows each rank a GPU of its own, it is that one. On a CPU the cores are
    shared out between the ranks of the node, so that they do not fight, unless OMP_NUM_THREADS says
    otherwise.

    Raises:
        RunError: there is no GPU for this rank.
    """
    if device == "cpu":
        beside = ranks_here(int(os.environ.get("WORLD_SIZE", "1")))
        if "OMP_NUM_THREADS" not in os.environ or beside > 1:
            torch.set_num_threads(max(1, visible_devices("cpu") // beside))
        return torch.device("cpu")
    local, count = _local_rank(), visible_devices("cuda")
    if count == 1 and _sees_its_own():
        local = 0
    if count and shares_gpus():
        local %= count
    if local >= count:
        raise RunError(
            f"rank {local} of this node has no GPU: torch sees {count}; start at most {count} "
            "ranks a node, or take --emulate or --device cpu"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def group_options(device: torch.device, timeout: timedelta | None = None) -> Any:
    """Return new options for one process group of ranks on such devices: for NCCL, on a GPU.

    NCCL's kernels then go first wherever a multiprocessor is free. Else they queue behind every
    block of the attention that was started before, and the exchange only begins as that ends.

    Args:
        device: this rank's.
        timeout: the group's; torch warns where its options know another one. None for torch's own.

    Returns:
        `torch.distributed.ProcessGroupNCCL.Options`; None on a CPU.
    """
    if device.type != "cuda":
        return None
    nccl: Any = dist.ProcessGroupNCCL
    options = nccl.Options(is_high_priority_stream=True)
    if timeout is not None:
        options._timeout = timeout
    return options


def device_memory(device: torch.device) -> int | None:
    """Return the bytes free on a GPU; None for a CPU, whose memory is not ours to predict."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


def provenance(device: torch.device) -> dict[str, Any]:
    """Return the device, the versions, the backend and the date."""
    gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if gpu else _processor(),
        "device_type": device.type,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if gpu else None,  # type: ignore[no-untyped-call]
        "backend": dist.get_backend() if dist.is_initialized() else None,
        "row_kernels": find(device)[1],
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    cores = visible_devices("cpu")
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123 - a pseudo-file
            name = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    return f"{name}, {cores} cores"
