"""Which configurations fit in memory, asked before any pack is planned.

State and activations depend on sizes alone, so a sweep in which nothing can fit is refused at once,
with what would make its smallest configuration fit. The KV that plans exchange comes on top, and is
counted when they are there.
"""

from collections.abc import Iterator
from dataclasses import replace

from flashcp.errors import PlanError
from flashcp.simulation.memory import CAPACITY_GB, memory
from flashcp.simulation.step import RECOMPUTE, StepModel
from flashcp.simulation.sweep import Configuration, Sweep

_MOST_RANKS = 1024


def capacities(sweep: Sweep, memory_gb: float | None) -> dict[str, float]:
    """Return the memory of each hardware's GPU in bytes, where it is known or given."""
    if memory_gb is not None:
        return {profile.name: memory_gb * 1e9 for profile in sweep.profiles}
    known = {p.name: CAPACITY_GB.get(p.name) for p in sweep.profiles}
    return {name: gb * 1e9 for name, gb in known.items() if gb is not None}


def require_fit(sweep: Sweep, step: StepModel, capacity_bytes: dict[str, float]) -> None:
    """Refuse a sweep in which nothing fits, even without exchanged KV.

    Raises:
        PlanError: names the smallest configuration, its memory, and what would fit.
    """
    smallest: tuple[float, float, Configuration] | None = None
    for configuration in sweep.configurations:
        capacity = capacity_bytes.get(configuration.hardware)
        if capacity is None or sweep.model(configuration).attention_only:
            return  # not known, so not refused
        needs = _least_bytes(sweep, configuration, step)
        if needs <= capacity:
            return
        if smallest is None or needs / capacity < smallest[0]:
            smallest = needs / capacity, needs, configuration
    if smallest is None:
        return
    _, needs, c = smallest
    raise PlanError(
        f"nothing fits in memory: {c.model} at {c.context_tokens} tokens, CP {c.cp}, tensor "
        f"parallel {c.tensor_parallel} needs {needs / 1e9:.0f} GB a GPU of "
        f"{capacity_bytes[c.hardware] / 1e9:.0f}; {_way_out(sweep, c, step, capacity_bytes)}"
    )


def _least_bytes(sweep: Sweep, configuration: Configuration, step: StepModel) -> float:
    return memory(
        sweep.model(configuration),
        step,
        cp=configuration.cp,
        tensor_parallel=configuration.tensor_parallel,
        rank_tokens=configuration.context_tokens / configuration.cp,
        kept_tokens=0,
    ).total_bytes


def _way_out(
    sweep: Sweep, c: Configuration, step: StepModel, capacity_bytes: dict[str, float]
) -> str:
    """Say what would fit; tries what costs least first, and more ranks after that."""
    capacity, model = capacity_bytes[c.hardware], sweep.model(c)
    lightest = step
    for lightest in _lighter(step):
        if _least_bytes(sweep, c, lightest) <= capacity:
            return f"{_changes(step, lightest)} would fit"
    also = f" with {_changes(step, lightest)}" if lightest != step else ""
    degree = c.tensor_parallel
    while degree <= min(model.kv_heads, 8):
        cp = c.cp
        while cp <= _MOST_RANKS:
            wider = replace(c, cp=cp, tensor_parallel=degree)
            if _least_bytes(sweep, wider, lightest) <= capacity:
                more = f" --tensor-parallel {degree}" if degree != c.tensor_parallel else ""
                return f"--cp {cp}{more}{also} would fit"
            cp *= 2
        degree *= 2
    return "a smaller --model or --context, or more memory (--memory-gb) would fit"


def _lighter(step: StepModel) -> Iterator[StepModel]:
    """Yield ways to train in less memory, from the same to the lightest."""
    for recompute in RECOMPUTE[RECOMPUTE.index(step.recompute) :]:
        yield replace(step, recompute=recompute)
        yield replace(step, recompute=recompute, state_sharding="full")


def _changes(step: StepModel, other: StepModel) -> str:
    """Return the options that make `other` of `step`."""
    return " ".join(
        f"--{name.replace('_', '-')} {getattr(other, name)}"
        for name in ("recompute", "state_sharding")
        if getattr(other, name) != getattr(step, name)
    )
