"""Builds the bundled profiles from the measured tables: `python -m costmodel.build_profiles`.

What the tables measured is fitted; everything else is a reported figure that is written down here
with its reference, once, and marked so in the profile. The result is deterministic; a test holds
the committed files to it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from costmodel.attention_backward import with_reported_backward
from costmodel.copies import CopyModel
from costmodel.estimate import Source
from costmodel.figure import Figure
from costmodel.fit_attention import fit_attention
from costmodel.profile import UNKNOWN_EXCHANGE_OVERLAP, Profile
from costmodel.profile_file import write_profile
from costmodel.provenance import Provenance
from costmodel.tables import attention_table, collective_table
from costmodel.topology import Network
from costmodel.validate import fit_collective_table, validate

if TYPE_CHECKING:
    from costmodel.held_out import HeldOutError

_DATA = (
    "NVIDIA aiconfigurator (Apache-2.0), commit 095f58a5: a sample of its context-attention and"
    " nccl-tests tables"
)
# In a profile stand the errors that sum up; `flashcp hardware validate` shows them all.
_SUMMARY_BUCKETS = ("from 64 tokens", "above 64 KB")


@dataclass(frozen=True)
class DataSheet:
    """What the data sheet of a GPU and of its usual node says."""

    device: str
    peak_tflops: float
    linear_share: float
    memory_gbps: float
    nic_gbps: float
    nic_reference: str


_NDR = "one NDR 400 Gb/s interface a GPU; 46-48 GB/s are publicly reported for it"
DATA_SHEETS = {
    "a100-sxm": DataSheet(
        device="NVIDIA A100 SXM 80 GB, 8 a node on NVLink 3 and NVSwitch",
        peak_tflops=312.0,
        linear_share=0.8,
        memory_gbps=2039.0,
        nic_gbps=23.5,
        nic_reference="one HDR 200 Gb/s interface a GPU, at the share of its line rate (94%)"
        " that is publicly reported for NDR",
    ),
    "h100-sxm": DataSheet(
        device="NVIDIA H100 SXM 80 GB, 8 a node on NVLink 4 and NVSwitch",
        peak_tflops=989.4,
        linear_share=0.7,
        memory_gbps=3350.0,
        nic_gbps=47.0,
        nic_reference=_NDR,
    ),
    "h200-sxm": DataSheet(
        device="NVIDIA H200 SXM 141 GB, 8 a node on NVLink 4 and NVSwitch",
        peak_tflops=989.4,
        linear_share=0.7,
        memory_gbps=4800.0,
        nic_gbps=47.0,
        nic_reference=_NDR,
    ),
}
_PAPER = "fitted to the copies in the training breakdown of FlashCP (arXiv 2606.08476) on 8 H100s"
_PAPER_GPU = "h100-sxm"


def build_profile(name: str) -> Profile:
    """Fit and return the bundled profile `name`, one of `DATA_SHEETS`; takes some seconds."""
    attention, collectives = attention_table(name), collective_table(name)
    sheet = DATA_SHEETS[name]
    return Profile(
        name=name,
        provenance=Provenance(
            device=sheet.device,
            driver=None,
            cuda=None,
            torch=None,
            nccl=str(collectives["nccl"].iloc[0]),
            attention_kernel=str(attention["kernel"].iloc[0]),
            attention_kernel_version=None,
            launch_mode="one process with a thread a GPU",
            date=None,
            data=_DATA,
            attention_samples=len(attention),
            collective_samples=len(collectives),
            held_out=_summary(validate(name)),
        ),
        attention=with_reported_backward(fit_attention(attention)),
        collectives=fit_collective_table(collectives),
        network=Network(
            gpus_per_node=8,
            nic_gbps=_reported(sheet.nic_gbps, sheet.nic_reference),
            step_us=_reported(
                14.0, "what NCCL's own tuner assumes for a step over the network (ring, Simple)"
            ),
        ),
        copies=_copies(sheet.memory_gbps, name),
        overlap_factor=_reported(
            1.126, "shipped by a public training simulator for attention beside NCCL kernels"
        ),
        exchange_overlap_factor=UNKNOWN_EXCHANGE_OVERLAP,
        launch_us=_reported(
            5.0, "launching a kernel from PyTorch is publicly reported at 4-10 us, mostly hidden"
        ),
        peak_tflops=_reported(sheet.peak_tflops, "data sheet, dense bf16"),
        linear_share=_reported(
            sheet.linear_share,
            "public matrix-multiplication benchmarks on large bf16 matrices, to one digit",
        ),
    )


def _copies(memory_gbps: float, name: str) -> CopyModel:
    scale = memory_gbps / DATA_SHEETS[_PAPER_GPU].memory_gbps
    carried = "" if name == _PAPER_GPU else "; taken over from there"
    return CopyModel(
        per_shard_us=_reported(93.3, _PAPER + carried),
        per_shard_gbps=_reported(
            round(340.0 * scale, 1),
            _PAPER + (carried and f"{carried}, times the ratio of memory bandwidths"),
        ),
        memory_gbps=_reported(memory_gbps, "data sheet"),
        memory_share=_reported(
            0.9, "public STREAM results on GPUs of this memory lie at 88-93% of the data sheet"
        ),
    )


def _reported(value: float, reference: str) -> Figure:
    return Figure(value, Source.REPORTED, reference)


def _summary(errors: list[HeldOutError]) -> tuple[HeldOutError, ...]:
    return tuple(error for error in errors if error.bucket in _SUMMARY_BUCKETS)


def main() -> None:
    """Write every bundled profile."""
    folder = Path(str(files("costmodel") / "data" / "profiles"))
    folder.mkdir(exist_ok=True)
    for name in DATA_SHEETS:
        write_profile(build_profile(name), folder / f"{name}.json")
        sys.stdout.write(f"wrote {name}\n")


if __name__ == "__main__":
    main()
