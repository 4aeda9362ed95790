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
from flashcp.simulation.sweep import AXES, Configuration, Sweep

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from flashcp.simulation.run import Simulated

BASELINE = "per-seq"
_MEANS = ("padded", "shards_per_rank", "moved_share", "eq5_share", "needed_share", "forward_us",
          "backward_us", "exchange_us", "copies_us", "bound_us", "overlaps")  # fmt: skip


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
        baseline: the strategy that speed-ups are over.
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
    sweep, found = simulated.sweep, []
    groups = dict(iter(simulated.rows.groupby([*AXES, "strategy"], observed=True, sort=False)))
    for configuration in sweep.configurations:
        key = tuple(asdict(configuration).values())
        of = {name: groups[(*key, name)] for name in sweep.strategies}
        found.extend(_cell(sweep, configuration, of, step, capacity_bytes))
    return sorted(found, key=lambda row: (row.fits is False, -row.tokens_per_s_gpu))


def _cell(
    sweep: Sweep,
    configuration: Configuration,
    of: "dict[str, pd.DataFrame]",
    step: StepModel,
    capacity_bytes: dict[str, float],
) -> list[Row]:
    """Return the rows of one configuration."""
    split = {name: _losses(frame) for name, frame in of.items()}
    timed = {name: _times(sweep, configuration, frame, step) for name, frame in of.items()}
    totals = {name: float(frame["total_us"].mean()) for name, frame in of.items()}
    baseline = BASELINE if BASELINE in of else max(totals, key=totals.__getitem__)
    best, *others = sorted(totals, key=totals.__getitem__)
    rival = baseline if baseline != best or not others else others[0]
    rows = []
    for name, frame in of.items():
        total = frame["total_us"].to_numpy()
        other = best if name != best else rival
        layer, steps = timed[name]
        layer_base, steps_base = timed[baseline]
        base = of[baseline]["total_us"].to_numpy()
        gpus = configuration.cp * configuration.tensor_parallel
        tokens = frame["tokens"].to_numpy(np.float64)
        if steps is not None:
            used = tokens[: steps.size * step.replicas]
            rate = used.sum() / steps.sum() / (gpus * step.replicas) * 1e6
        else:
            rate = tokens.sum() / total.sum() / gpus * 1e6
        imbalance = frame["imbalance"].to_numpy()
        rows.append(
            Row(
                configuration=configuration,
                strategy=name,
                packs=len(frame),
                total_us=mean_interval(total),
                imbalance=mean_interval(imbalance),
                worst_imbalance=float(imbalance.max()),
                means={column: float(frame[column].mean()) for column in _MEANS},
                losses=split[name],
                baseline=baseline,
                speedup=ratio_interval(base, total),
                layer_speedup=None
                if layer is None or layer_base is None
                else ratio_interval(layer_base, layer),
                step_speedup=None
                if steps is None or steps_base is None
                else ratio_interval(steps_base, steps),
                step_us=None if steps is None else mean_interval(steps),
                tokens_per_s_gpu=float(rate),
                memory=_memory(sweep, configuration, frame, step),
                capacity_bytes=capacity_bytes.get(configuration.hardware),
                reason="the only strategy"
                if len(of) == 1
                else reason(split[name], split[other], other),
            )
        )
    return rows


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
