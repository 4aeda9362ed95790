"""Why one plan takes longer than another, in a phrase.

A plan's mean time is the sum of five parts, exactly:

    bound       the least attention of any plan of the pack (`flashcp.bounds`)
    imbalance   what the most loaded rank has above the mean, at the bound's rate
    kernels     the rest of attention: partial tiles, waves, launches, masks of a ring's rectangles
    exchange    what no kernel hides
    copies      copies and merges

Two strategies on the same packs share the bound; what differs is a difference of the other four,
and the largest is the reason. Between settings the bound may differ too: another kernel, another
number of ranks.
"""

from dataclasses import dataclass
from typing import Any

PARTS = ("bound", "imbalance", "kernels", "exchange", "copies")
_PHRASES = {
    "bound": "less work a rank or faster kernels",
    "imbalance": "balance",
    "kernels": "kernels",
    "exchange": "exchange",
    "copies": "copies",
}


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Mean microseconds of one attention layer by cause: the bound, and what is above it."""

    bound: float
    imbalance: float
    kernels: float
    exchange: float
    copies: float

    def to_json(self) -> dict[str, Any]:
        """Return the losses by name, in microseconds."""
        return {f"{part}_us": getattr(self, part) for part in PARTS}


def losses(
    bound_us: float, imbalance: float, attention_us: float, exchange_us: float, copies_us: float
) -> Losses:
    """Split a mean time above its bound; `imbalance` is the largest rank's work over the mean."""
    uneven = bound_us * (imbalance - 1)
    return Losses(
        bound=bound_us,
        imbalance=uneven,
        kernels=attention_us - bound_us - uneven,
        exchange=exchange_us,
        copies=copies_us,
    )


def reason(ours: Losses, theirs: Losses, name: str) -> str:
    """Say what most of the difference to strategy `name` comes from.

    Returns:
        "as per-seq", "1.23 ms before per-seq: balance 1.50, copies -0.27" or "... behind ...";
        the causes by size, those below a fifth of the largest left out.
    """
    by_part = {part: getattr(theirs, part) - getattr(ours, part) for part in PARTS}
    gain = sum(by_part.values())
    if abs(gain) < 0.5:  # half a microsecond
        return f"as {name}"
    sign = 1 if gain > 0 else -1
    causes = sorted(by_part, key=lambda part: -abs(by_part[part]))
    most = abs(by_part[causes[0]])
    told = ", ".join(
        f"{_PHRASES[part]} {sign * by_part[part] / 1000:.2f}"
        for part in causes
        if abs(by_part[part]) >= 0.2 * most
    )
    word = "before" if gain > 0 else "behind"
    return f"{abs(gain) / 1000:.2f} ms {word} {name}: {told}"
