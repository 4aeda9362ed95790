"""Plans and predicts a block of packs with every strategy of one configuration.

The unit of work: what a process computes at a time, what is written whole, and what is lost at most
when a process dies. Its result depends on nothing but its packs and its configuration, so neither
the number of processes nor the engine changes a bit of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flashcp.bounds import attention_bound_us
from flashcp.exchange import Exchange
from flashcp.measures import measure
from flashcp.parts import predict_parts
from flashcp.plans import Plan
from flashcp.prediction import Setting
from flashcp.search.weights import Balance
from flashcp.simulation.sweep import Sweep
from flashcp.simulation.switched import switched_plan
from flashcp.simulation.what_if import WhatIf
from flashcp.workers import stop_if_asked

# Columns of a block: a pack's own, `Measures`, `Parts`, and what memory and ablations need.
COLUMNS = (
    "documents",
    "tokens",
    "bound_us",
    "imbalance",
    "moved_share",
    "eq5_share",
    "needed_share",
    "padded",
    "shards_per_rank",
    "across_tokens",
    "across_largest_tokens",
    "forward_us",
    "backward_us",
    "exchange_us",
    "copies_us",
    "total_us",
    "forward_total_us",
    "kept_tokens",
    "overlaps",
)
WHOLE_COLUMNS = frozenset({"documents", "tokens", "kept_tokens", "overlaps"})


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every process needs to know once, before any block.

    Attributes:
        strategies: names.
        cells: CP degree, setting and what-if of every configuration.
        plan_effort: search steps of `auto`, in units of its default.
        balance: what `auto` evens out between ranks.
    """

    strategies: tuple[str, ...]
    cells: tuple[tuple[int, Setting, WhatIf], ...]
    plan_effort: float = 1.0
    balance: Balance | None = None

    @classmethod
    def of(cls, sweep: Sweep) -> "Job":
        """Return the job of a sweep, without the measured calls that only sources need."""
        return cls(
            strategies=tuple(sweep.strategies),
            cells=tuple(
                (c.cp, _light(sweep.setting(c)), sweep.what_if(c)) for c in sweep.configurations
            ),
            plan_effort=sweep.plan_effort,
            balance=sweep.balance,
        )

    def run(self, cell: int, packs: Sequence[NDArray[np.int32]]) -> NDArray[np.float64]:
        """Return the rows of a block, float64 [packs, strategies, COLUMNS]."""
        cp, setting, what_if = self.cells[cell]
        rows = np.empty((len(packs), len(self.strategies), len(COLUMNS)))
        for i, lengths in enumerate(packs):
            stop_if_asked()
            bound_us = attention_bound_us(lengths, cp, setting)
            for s, strategy in enumerate(self.strategies):
                made = switched_plan(
                    lengths, cp, strategy, setting, what_if, self.plan_effort, self.balance
                )
                values = {
                    **vars(measure(made, setting.ranks_per_node)),
                    **vars(predict_parts(made, setting)),
                    "documents": lengths.size,
                    "tokens": made.context_tokens,
                    "bound_us": bound_us,
                    "kept_tokens": kept_tokens(made),
                    "overlaps": made.overlap,
                }
                rows[i, s] = [values[name] for name in COLUMNS]
        return rows


def kept_tokens(plan: Plan) -> int:
    """Return the most tokens of others' KV that a rank holds from forward to backward.

    Joined exchanges gather once and use it in both directions; a ring passes KV again in backward
    and holds two blocks at a time.
    """
    if plan.cp == 1:
        return 0
    if plan.exchange is Exchange.RING:
        return 2 * int(plan.rank_tokens.max())
    if plan.exchange in (Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL):
        return int(plan.needed_tokens[1].max())
    largest = plan.rank_tokens if plan.exchange is Exchange.ALL_GATHER else plan.non_last_tokens
    return (plan.cp - 1) * int(largest.max())


def _light(setting: Setting) -> Setting:
    attention = setting.profile.attention
    fits = tuple(replace(fit, sampled=None) for fit in attention.fits)
    return replace(
        setting, profile=replace(setting.profile, attention=replace(attention, fits=fits))
    )
