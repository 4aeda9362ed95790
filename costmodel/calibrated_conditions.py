"""Tells in what a profile is not of what runs here: hardware, kernel, NCCL, or launch mode.

Names differ between tools, so they are compared by what matters: a GPU by its model ("H100"), an
attention kernel by its generation, NCCL by major and minor version.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from costmodel.attention import CPU_KERNEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmodel.profile import Profile

_DTYPES = ("bfloat16", "float16", "float32")


def launch_mode(device_type: str, threads: int) -> str:
    """Return how ranks are started, as profiles record it.

    Args:
        device_type: "cuda" or "cpu".
        threads: of one rank, on a CPU.
    """
    if device_type == "cuda":
        return "one process a GPU"
    return f"one process a rank on the CPU, {threads} thread{'s' if threads > 1 else ''} each"


def kernel_family(name: str) -> str:
    """Return a kernel's name without its release, as `KERNELS` has it: "flash-attn-3"."""
    if name == CPU_KERNEL:
        return name
    if "CuTe" in name:
        return "flash-attn-4"
    if found := re.match(r"flash-attn[ -](\d+)", name):
        return f"flash-attn-{found[1]}"
    if name.startswith("torch ") and name.endswith("varlen"):
        return "torch-varlen"
    return name


def same_device(profile: Profile, environment: Mapping[str, Any]) -> bool:
    """Tell whether the device that `environment` names is the profile's."""
    theirs, mine = profile.provenance.device, str(environment["device"])
    if theirs == mine:
        return True
    if environment["device_type"] != "cuda":
        return False
    # "NVIDIA H100 80GB HBM3" is the device of a profile of an "NVIDIA H100 SXM 80 GB".
    models = [word for word in mine.split() if any(c.isdigit() for c in word)]
    return bool(models) and models[0] in theirs.split()


def measured_dtype(profile: Profile) -> str | None:
    """Return the precision that a profile's attention was measured in; None where it is not said.

    Bundled profiles do not say it: their tables are of bfloat16, as models train.
    """
    said = (profile.provenance.attention_kernel_version or "").rpartition(", ")[2]
    return said if said in _DTYPES else None


def differences(profile: Profile, environment: Mapping[str, Any]) -> list[str]:
    """Return one line for each way in which a profile is not of what runs here.

    Args:
        profile: what predictions are made with.
        environment: `device`, `device_type`, `attention_kernel`, and where they apply `nccl`,
            `dtype`, `threads` and `emulated`, as a run's report has them.
    """
    known = profile.provenance
    lines = []
    if not same_device(profile, environment):
        lines.append(f"the profile is of {known.device}, this is {environment['device']}")
    mine, theirs = environment.get("attention_kernel"), known.attention_kernel
    if mine and kernel_family(mine) != kernel_family(theirs):
        lines.append(f"the profile is of the attention kernel {theirs}, here {mine} runs")
    measured_in, dtype = measured_dtype(profile), environment.get("dtype")
    if dtype and measured_in and measured_in != dtype:
        lines.append(f"the profile's attention is in {measured_in}, this run's in {dtype}")
    nccl = environment.get("nccl")
    if environment.get("emulated"):
        return lines  # nothing is exchanged
    if (nccl or known.nccl) and _minor(nccl) != _minor(known.nccl):
        lines.append(
            f"the profile's exchanges ran with {_nccl(known.nccl)}, here with {_nccl(nccl)}"
        )
    launched = launch_mode(environment["device_type"], int(environment.get("threads") or 1))
    if launched != known.launch_mode:
        lines.append(f"the profile's ranks were {known.launch_mode}, these are {launched}")
    return lines


def _minor(version: str | None) -> str | None:
    return None if version is None else ".".join(version.split(".")[:2])


def _nccl(version: str | None) -> str:
    return "gloo" if version is None else f"NCCL {version}"
