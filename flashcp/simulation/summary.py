"""Means, intervals, step times, memory and reasons of every configuration and strategy, best first.

Best is the most tokens a second and GPU: of a whole training step where the model's linear layers
are known, of attention alone otherwise. What does not fit in memory comes last, however fast.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flashcp.simulation.intervals import Interval, mean_interval, ratio_interval
from flashcp.simulation.memory import Memory, memory
from flashcp.simulation.reasons import Losses, losses, reason
from flashcp.simulation.step import StepModel, pack_times_us, slowest_of_steps
from flashcp.simulation.sweep import Configuration, Sweep

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from flashcp.simulation.run import Simulated

BASELINE = "per-seq"
FIRST = "the first settings"
_MEANS = ("padded", "shards_per_rank", "moved_share", "eq5_share", "needed_share", "across_tokens",
          "across_largest_tokens", "forward_us", "backward_us", "exchange_us", "copies_us",
          "bound_us", "overlaps")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration and strategy; times are of one attention layer unless they say more.

    Attributes:
        configuration: all axes but the strategy.
        strategy: its name.
        packs: how many there were.
        total_us: forward + backward, slowest rank, mean over packs.
        imbalance: largest rank's work over the mean, mean over packs, and of the worst pack.
        means: other columns' means over packs.
        losses: what the time is above the bound, by cause.
        baseline: the strategy that speed-ups are over, or `FIRST`.
        speedup: of attention; `layer_speedup`, `step_speedup`: of a layer, of a training step;
            None where the model describes attention only.
        step_us: a training step: all layers and the output head, the slowest replica.
        tokens_per_s_gpu: of the step, or of one attention layer where there is no step.
        memory: of the fullest rank of the worst pack; None where there is no step.
        capacity_bytes: of the GPU; None where it is not known.
        reason: why it is before or behind.
    """

    configuration: Configuration
    strategy: str
    packs: int
    total_us: Interval
    imbalance: Interval
    worst_imbalance: float
    means: dict[str, float]
    losses: Losses
    baseline: str
    speedup: Interval
    layer_speedup: Interval | None
    step_speedup: Interval | None
    step_us: Interval | None
    tokens_per_s_gpu: float
    memory: Memory | None
    capacity_bytes: float | None
    reason: str

    @property
    def spans_nodes(self) -> bool:
        """Whether the ranks of a pack are on several nodes."""
        return self.configuration.ranks_per_node < self.configuration.cp

    @property
    def fits(self) -> bool | None:
        """Whether it fits in memory; None where that is not known."""
        if self.memory is None or self.capacity_bytes is None:
            return None
        return self.memory.total_bytes <= self.capacity_bytes

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object."""

        def interval(value: Interval | None) -> dict[str, Any] | None:
            return None if value is None else value.to_json()

        return {
            **asdict(self.configuration),
            "strategy": self.strategy,
            "packs": self.packs,
            "total_us": self.total_us.to_json(),
            "imbalance": {**self.imbalance.to_json(), "worst": self.worst_imbalance},
            **self.means,
            "losses": self.losses.to_json(),
            "baseline": self.baseline,
            "speedup": self.speedup.to_json(),
            "layer_speedup": interval(self.layer_speedup),
            "step_speedup": interval(self.step_speedup),
            "step_us": interval(self.step_us),
            "tokens_per_s_gpu": self.tokens_per_s_gpu,
            "memory": None
            if self.memory is None
            else {**asdict(self.memory), "total_bytes": self.memory.total_bytes},
            "capacity_bytes": self.capacity_bytes,
            "fits": self.fits,
            "reason": self.reason,
        }


def summarise(
    simulated: "Simulated", step: StepModel, capacity_bytes: dict[str, float]
) -> list[Row]:
    """Return a row for every configuration and strategy, best first.

    Args:
        simulated: what the sweep gave.
        step: how the model is trained around its attention.
        capacity_bytes: memory of a GPU, by hardware name.
    """
    sweep = simulated.sweep
    cells: dict[Configuration, dict[str, _Measured]] = {}
    for configuration, name, frame in simulated.frames():
        cells.setdefault(configuration, {})[name] = _measured(sweep, configuration, frame, step)
    rows = []
    for configuration, cell in cells.items():
        for name, ours in cell.items():
            base, base_name, rival, rival_name = _references(cells, configuration, name)
            gpus = configuration.cp * configuration.tensor_parallel
            rows.append(
                Row(
                    configuration=configuration,
                    strategy=name,
                    packs=len(ours.frame),
                    total_us=mean_interval(ours.total_us),
                    imbalance=mean_interval(ours.frame["imbalance"].to_numpy()),
                    worst_imbalance=float(ours.frame["imbalance"].max()),
                    means={column: float(ours.frame[column].mean()) for column in _MEANS},
                    losses=ours.losses,
                    baseline=base_name,
                    speedup=ratio_interval(base.total_us, ours.total_us),
                    layer_speedup=_ratio(base.layer_us, ours.layer_us),
                    step_speedup=_ratio(base.step_us, ours.step_us),
                    step_us=None if ours.step_us is None else mean_interval(ours.step_us),
                    tokens_per_s_gpu=ours.tokens_per_s(step.replicas) / gpus,
                    memory=_memory(sweep, configuration, ours.frame, step),
                    capacity_bytes=capacity_bytes.get(configuration.hardware),
                    reason=reason(ours.losses, rival.losses, rival_name),
                )
            )
    return sorted(rows, key=lambda row: (row.fits is False, -row.tokens_per_s_gpu))


@dataclass(frozen=True, eq=False, kw_only=True)
class _Measured:
    """One configuration and strategy; `layer_us` [packs] and `step_us` [steps] where known."""

    frame: "pd.DataFrame"
    losses: Losses
    layer_us: "NDArray[np.float64] | None"
    step_us: "NDArray[np.float64] | None"

    @property
    def total_us(self) -> "NDArray[np.float64]":
        return self.frame["total_us"].to_numpy()

    def tokens_per_s(self, replicas: int) -> float:
        """Tokens a second of one replica's GPUs together."""
        tokens = self.frame["tokens"].to_numpy(np.float64)
        if self.step_us is None:
            return float(tokens.sum() / self.total_us.sum() * 1e6)
        used = tokens[: self.step_us.size * replicas]
        return float(used.sum() / self.step_us.sum() / replicas * 1e6)


def _references(
    cells: dict[Configuration, dict[str, _Measured]], configuration: Configuration, name: str
) -> tuple[_Measured, str, _Measured, str]:
    """Return what a row's speed-up is over, and what its reason compares it with.

    The baseline strategy of the same configuration, and the best other one. Where there is one
    strategy, settings are compared: with the first configuration of the same packs.
    """
    cell = cells[configuration]
    if len(cell) == 1:
        first = next(c for c in cells if c.packing == configuration.packing)
        return cells[first][name], FIRST, cells[first][name], FIRST
    ranked = sorted(cell, key=lambda other: float(cell[other].total_us.mean()))
    baseline = BASELINE if BASELINE in cell else ranked[-1]
    rival = ranked[0]
    if name == rival:
        rival = baseline if baseline != name else ranked[1]
    return cell[baseline], baseline, cell[rival], rival


def _ratio(
    above: "NDArray[np.float64] | None", below: "NDArray[np.float64] | None"
) -> Interval | None:
    return None if above is None or below is None else ratio_interval(above, below)


def _measured(
    sweep: Sweep, configuration: Configuration, frame: "pd.DataFrame", step: StepModel
) -> _Measured:
    layer, steps = _times(sweep, configuration, frame, step)
    return _Measured(frame=frame, losses=_losses(frame), layer_us=layer, step_us=steps)


def _losses(frame: "pd.DataFrame") -> Losses:
    attention = float((frame["forward_us"] + frame["backward_us"]).mean())
    # The bound weighs each pack's imbalance, so that the parts add up to the mean time.
    bound = frame["bound_us"]
    imbalance = float((bound * frame["imbalance"]).sum() / bound.sum())
    exchange, copies = float(frame["exchange_us"].mean()), float(frame["copies_us"].mean())
    return losses(float(bound.mean()), imbalance, attention, exchange, copies)


def _times(
    sweep: Sweep, configuration: Configuration, frame: "pd.DataFrame", step: StepModel
) -> "tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]":
    """Return each pack's layer and each step, or None where the model is attention only."""
    model = sweep.model(configuration)
    if model.attention_only:
        return None, None
    layer, packs = pack_times_us(
        np.ceil(frame["tokens"].to_numpy(np.float64) / configuration.cp),
        frame["total_us"].to_numpy(),
        frame["forward_total_us"].to_numpy(),
        model,
        sweep.setting(configuration).profile,
        configuration.tensor_parallel,
        step.recompute,
    )
    return layer, slowest_of_steps(packs, step.replicas)


def _memory(
    sweep: Sweep, configuration: Configuration, frame: "pd.DataFrame", step: StepModel
) -> Memory | None:
    model = sweep.model(configuration)
    if model.attention_only:
        return None
    return memory(
        model,
        step,
        cp=configuration.cp,
        tensor_parallel=configuration.tensor_parallel,
        rank_tokens=float(np.ceil(frame["tokens"].max() / configuration.cp)),
        kept_tokens=float(frame["kept_tokens"].max()),
    )
