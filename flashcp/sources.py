"""Says where a prediction's numbers come from: measured, interpolated, extrapolated or reported."""

import numpy as np

from costmodel.estimate import Source
from flashcp.exchange import Exchange
from flashcp.plan_costs import PlanCosts
from flashcp.plans import Plan
from flashcp.prediction import Setting


def sources(plan: Plan, setting: Setting) -> dict[str, Source]:
    """Return the source of each part of `plan`'s prediction.

    Args:
        plan: the plan.
        setting: hardware and model shape.

    Returns:
        By part: forward, backward, exchange, copies. For attention the worst over the ranks' calls.
    """
    model, profile = setting.model, setting.profile
    q_lens, k_lens = (plan.stop - plan.start).astype(np.int64), plan.stop.astype(np.int64)
    heads = (model.q_heads, model.kv_heads, model.head_dim)
    ring = plan.exchange is Exchange.RING and plan.cp > 1
    found = {
        direction: max(
            profile.attention.source(
                q_lens[first:last], k_lens[first:last], *heads, direction, causal=not ring
            )
            for first, last in zip(plan.rank_splits[:-1], plan.rank_splits[1:], strict=True)
            if last > first
        )
        for direction in ("forward", "backward")
    }
    costs = PlanCosts(plan, setting)
    found["exchange"] = max(costs.exchange("forward").source, costs.exchange("backward").source)
    mode = "per-shard" if setting.copies_shards(plan.strategy) else "in-place"
    found["copies"] = profile.copy_us(1.0, 1.0, mode).source
    return found
