"""Builds a profile from what a calibration measured, and says how far to trust it.

Attention and collectives are fitted as the bundled tables are; copies, launches and overlap are
one or two numbers each. For the errors every point is left out once: points are dealt into five
random fifths, each is predicted by a fit to the other four, and what is stored is signed and
absolute error by bucket. The shipped fit is to all points.

What this machine cannot measure by itself (links between nodes on one node, collectives on one
GPU) is taken over from a bundled profile and marked reported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from costmodel.attention import CPU_KERNEL, AttentionModel
from costmodel.attention_backward import with_reported_backward
from costmodel.attention_calls import KERNELS, KernelTraits, MeasuredCall
from costmodel.calibrated_copies import copy_model, measured, taken_over
from costmodel.calibrated_network import measured_network
from costmodel.calibrated_points import (
    AttentionPoint,
    CopyPoint,
    LaunchPoint,
    MatmulPoint,
    MessagePoint,
    OverlapPoint,
    Point,
    QueuePoint,
    TransferPoint,
)
from costmodel.calibrated_prior import cpu_prior
from costmodel.calibrated_spikes import without_spikes
from costmodel.collectives import UNEVEN, CollectiveModel
from costmodel.errors import ProfileError
from costmodel.estimate import Source
from costmodel.fit_attention import fit_attention, predict_us
from costmodel.fit_collectives import fit_groups
from costmodel.profile import Profile
from costmodel.profile_file import bundled_profiles, load_profile
from costmodel.provenance import Provenance
from costmodel.topology import Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costmodel.figure import Figure

# Without a paged cache flash-attn-2, and torch's copy of it, take larger tiles than `KERNELS` has.
# Read from its source; that they fit better, nobody has measured yet.
_FLASH_ATTENTION_2 = KernelTraits(
    {64: (128, 128), 128: (128, 64)}, packs_gqa=False, splits_keys=False, empty_blocks=True
)
_TRAINING_TRAITS = {
    CPU_KERNEL: KERNELS[CPU_KERNEL],
    "flash-attn-2": _FLASH_ATTENTION_2,
    "torch-varlen": _FLASH_ATTENTION_2,
    "flash-attn-3": KERNELS["flash-attn-3"],
    "flash-attn-4": KERNELS["flash-attn-3"],
}
_DEFAULT_BASE = "h100-sxm"
_HELD_UP = 0.25  # in the logarithm of the time
_SPREADS = 5.0
_MOST_HELD_UP = 0.15
_DATA = "points measured by flashcp calibrate, in this file"


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the measurements were made on and with.

    Attributes:
        device: the device's name.
        device_type: "cuda" or "cpu".
        units: streaming multiprocessors of the GPU, or threads of a rank on a CPU.
        driver: version of the GPU's driver.
        cuda: version of CUDA.
        torch: version of PyTorch.
        nccl: version of NCCL; None where gloo was used.
        attention_kernel: the kernel's name among `KERNELS`, or its own.
        attention_kernel_version: the kernel and its release, as it names itself.
        launch_mode: how ranks were started.
        ranks: how many there were.
        ranks_per_node: how many of them shared a node.
        date: YYYY-MM-DD.
    """

    device: str
    device_type: str
    units: int
    driver: str | None
    cuda: str | None
    torch: str | None
    nccl: str | None
    attention_kernel: str
    attention_kernel_version: str | None
    launch_mode: str
    ranks: int
    ranks_per_node: int
    date: str


def calibrated_profile(
    name: str, conditions: Conditions, points: Sequence[Point], base: Profile
) -> Profile:
    """Return the profile of a calibrated machine, its held-out errors in its provenance.

    Args:
        name: of the profile.
        conditions: of the measurements.
        points: what was measured; forward attention at least.
        base: the bundled profile that what was not measured is taken over from.

    Raises:
        ProfileError: no forward attention among the points.
    """
    from costmodel.calibrated_errors import held_out  # noqa: PLC0415 - it fits with this module

    attention = of(points, AttentionPoint)
    transfers = of(points, TransferPoint)
    if not any(point.direction == "forward" for point in attention):
        raise ProfileError("the calibration measured no forward attention; calibrate again")
    profile = Profile(
        name=name,
        provenance=Provenance(
            device=conditions.device,
            driver=conditions.driver,
            cuda=conditions.cuda,
            torch=conditions.torch,
            nccl=conditions.nccl,
            attention_kernel=conditions.attention_kernel,
            attention_kernel_version=conditions.attention_kernel_version,
            launch_mode=conditions.launch_mode,
            date=conditions.date,
            data=_DATA,
            attention_samples=len(attention),
            collective_samples=len(transfers),
            held_out=(),
        ),
        attention=fit_points(attention, conditions.attention_kernel, conditions.units),
        collectives=_collectives(transfers, conditions, base),
        network=_network(transfers, conditions, base),
        copies=copy_model(of(points, CopyPoint), of(points, QueuePoint), base),
        **_overlap(of(points, OverlapPoint), base),
        launch_us=_launch(of(points, LaunchPoint), base),
        message_us=_message(of(points, MessagePoint), base),
        **_linear(of(points, MatmulPoint), base),
        points=tuple(points),
    )
    errors = tuple(held_out(profile))
    return replace(profile, provenance=replace(profile.provenance, held_out=errors))


def base_for(device: str) -> Profile:
    """Return the bundled profile of the GPU that `device` names, else that of an H100."""
    names = bundled_profiles()
    model = next((name for name in names if name.split("-")[0].upper() in device.upper()), None)
    return load_profile(model or _DEFAULT_BASE)


def of(points: Sequence[Point], kind: type) -> list:  # type: ignore[type-arg]
    """Return the points of one kind."""
    return [point for point in points if isinstance(point, kind)]


def fit_points(
    points: Sequence[AttentionPoint], kernel: str, units: int, traits: KernelTraits | None = None
) -> AttentionModel:
    """Fit attention points; a kernel that is not known is taken for one like flash-attn-2.

    The robust fit weighs slow calls down, but those that alone tell of a coefficient still pull at
    it: the worst two of 24 moved a prediction by 11%. So calls that the fit shows to be held up are
    left out and the rest is fitted again: as if they had not been measured.

    Args:
        points: with forward ones among them.
        kernel: name of the kernel.
        units: streaming multiprocessors or threads.
        traits: of the kernel, where they are to be others than its own.
    """

    def fitted(calls: list[MeasuredCall]) -> AttentionModel:
        model = fit_attention(
            calls,
            kernel_name=kernel,
            sms=units,
            traits=traits or traits_of(kernel),
            prior=cpu_prior(units) if kernel == CPU_KERNEL else None,
        )
        # Backward may be missing where a calibration was told to measure forward alone.
        return model if kernel == CPU_KERNEL else with_reported_backward(model)

    calls = [point.call() for point in points]
    model = fitted(calls)
    slower = np.log([call.us for call in calls]) - np.log(predict_us(model, calls))
    kinds = [(call.direction, call.head_dim) for call in calls]
    held_up = np.zeros(len(calls), bool)
    for kind in set(kinds):
        rows = np.array([one == kind for one in kinds])
        spread = 1.4826 * float(np.median(np.abs(slower[rows])))
        slow = rows & (slower > max(_HELD_UP, _SPREADS * spread))
        # Of more than that many, the model does not follow what was measured.
        if slow.sum() <= _MOST_HELD_UP * rows.sum():
            held_up |= slow
    if not held_up.any():
        return model
    return fitted([call for call, out in zip(calls, held_up, strict=True) if not out])


def traits_of(kernel: str) -> KernelTraits:
    """Return the traits of a kernel in training; an unknown one is taken for flash-attn-2."""
    return _TRAINING_TRAITS.get(kernel, _TRAINING_TRAITS["flash-attn-2"])


def fit_transfers(points: Sequence[TransferPoint]) -> CollectiveModel:
    """Fit the transfers of every group, uneven all-to-alls as a collective of their own.

    In gloo they are one: its all-to-all of even parts takes its messages one after the other,
    uneven parts are sent as messages that all travel at once. Derived from even ones they were
    26 to 59% off.
    """
    groups: dict[tuple[str, int, int], list[TransferPoint]] = {}
    for point in points:
        if point.parts != "empty":
            name = point.collective if point.parts == "even" else UNEVEN
            groups.setdefault((name, point.ranks, point.ranks_per_node), []).append(point)
    return fit_groups(
        (*group, float(point.total_bytes), point.us)
        for group, measured in groups.items()
        for point in without_spikes(measured)
    )


def _collectives(
    points: Sequence[TransferPoint], conditions: Conditions, base: Profile
) -> CollectiveModel:
    if any(point.parts == "even" and point.ranks == point.ranks_per_node for point in points):
        return fit_transfers(points)
    if conditions.device_type == "cpu":
        return fit_transfers(points) if points else CollectiveModel(())
    return CollectiveModel(base.collectives.curves, Source.REPORTED)


def _network(points: Sequence[TransferPoint], conditions: Conditions, base: Profile) -> Network:
    network = Network(
        gpus_per_node=(
            conditions.ranks_per_node if conditions.ranks > 1 else base.network.gpus_per_node
        ),
        nic_gbps=taken_over(base.network.nic_gbps, base),
        step_us=taken_over(base.network.step_us, base),
    )
    if conditions.device_type == "cpu" and conditions.ranks == conditions.ranks_per_node:
        # Any number of processes share a CPU.
        network = replace(network, gpus_per_node=1024)
    across = [point for point in points if point.ranks > point.ranks_per_node]
    return measured_network(across, fit_transfers(points), network) if across else network


def _overlap(points: Sequence[OverlapPoint], base: Profile) -> dict[str, Figure]:
    if not points:
        return {
            "overlap_factor": taken_over(base.overlap_factor, base),
            "exchange_overlap_factor": taken_over(base.exchange_overlap_factor, base),
        }
    factors = np.median([(p.attention_factor, p.exchange_factor) for p in points], axis=0)
    many = f"median of {len(points)}"
    return {
        "overlap_factor": measured(factors[0], f"attention beside an exchange, {many}"),
        "exchange_overlap_factor": measured(factors[1], f"an exchange beside attention, {many}"),
    }


def _launch(points: Sequence[LaunchPoint], base: Profile) -> Figure:
    if not points:
        return taken_over(base.launch_us, base)
    return measured(float(np.median([point.us for point in points])), "an empty kernel, queued")


def _message(points: Sequence[MessagePoint], base: Profile) -> Figure:
    if not points:
        return base.message_us
    return measured(float(np.median([point.us for point in points])), "a message, posted")


def _linear(points: Sequence[MatmulPoint], base: Profile) -> dict[str, Figure]:
    if not points:
        return {
            "peak_tflops": taken_over(base.peak_tflops, base),
            "linear_share": taken_over(base.linear_share, base),
        }
    best = max(point.flops / point.us / 1e6 for point in points)
    return {
        "peak_tflops": measured(best, "the fastest matrix product, as precise as attention"),
        "linear_share": measured(1.0, "of the measured peak"),
    }
