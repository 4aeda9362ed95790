"""The report's sentences: what to do, what was assumed, how to read each column."""

from typing import TYPE_CHECKING

from flashcp_cli.amounts import number
from flashcp_cli.report.data import configuration_name
from flashcp_cli.simulate_labels import slowest, varying

if TYPE_CHECKING:
    from flashcp.simulation.step import StepModel
    from flashcp.simulation.summary import Row
    from flashcp.simulation.sweep import Sweep


def verdict(rows: "list[Row]", sweep: "Sweep") -> str:
    """Say which setting is best, by how much, and why."""
    best = rows[0]
    where = f" at {configuration_name(sweep, best.configuration)}" if varying(sweep) else ""
    if best.fits is False:
        return f"Nothing fits in memory; the fastest that does not is {best.strategy}{where}."
    text = f"{best.strategy}{where} is best"
    if best.reason.startswith("as "):  # itself what others are compared with, or no better
        return f"{text}."
    if best.strategy != best.baseline:
        text += f": {best.speedup.value:.2f}x {best.baseline} in attention"
        if best.step_speedup:
            text += f", {best.step_speedup.value:.2f}x in a training step"
    return f"{text}. Why: {best.reason} (ms of one attention layer)."


def notes(rows: "list[Row]", step: "StepModel") -> list[str]:
    """Return what every strategy's gain over the configurations is, and what was assumed."""
    lines = []
    for name in dict.fromkeys(row.strategy for row in rows):
        ours = [row.step_speedup or row.speedup for row in rows if row.strategy == name]
        if name == rows[0].baseline:
            continue
        gains = sum(interval.low > 1 for interval in ours)
        losses = sum(interval.high < 1 for interval in ours)
        lines.append(
            f"{name} against {rows[0].baseline}: faster in {gains} of "
            f"{number(len(ours), 'configuration')}, slower in {losses}, no clear difference in "
            f"{len(ours) - gains - losses}."
        )
    if rows[0].step_us is None:
        lines.append("The model gives attention heads only: no layer, step or memory.")
    else:
        lines.append(
            f"A step: all layers and the output head, {slowest(step.replicas)}, "
            f"recompute {step.recompute}, state sharding {step.state_sharding}. Not counted: "
            "exchange of gradients and parameters, optimiser, element-wise kernels, pipeline."
        )
    return lines


_GLOSSARY = {
    "ms a layer": "Predicted time of one attention layer, forward + backward, on the slowest rank, "
    "mean over packs: kernels, exchange that no kernel hides, copies.",
    "attention, layer, step": "Times as fast as the baseline in the same configuration: attention "
    "alone, with the layer's linear layers, and as a whole training step. Judge by the step.",
    "± 95%": "Half of the interval over packs; within it a difference may be chance.",
    "imbalance, worst": "Work of the most loaded rank over the mean: mean and worst pack.",
    "KV moved": "Tokens that a rank receives as a share of a full all-gather.",
    "across nodes, a rank": "Tokens of KV, in thousands, that cross nodes, a layer and one way: of "
    "all ranks together, and of the rank that sends or receives most.",
    "memory GB": "Model state, activations and exchanged KV on the fullest rank of the worst pack.",
    "tokens/s a GPU": "What the table is sorted by; compares different CP degrees fairly.",
    "why": "What the difference to the best (or, for the best, to the next) comes from, in "
    "milliseconds of one layer: balance, kernels, exchange, copies.",
}


def glossary(baseline: str) -> list[tuple[str, str]]:
    """Return the columns and what they mean."""
    return [(term, text.replace("the baseline", baseline)) for term, text in _GLOSSARY.items()]
