"""Means over packs of what `flashcp.compare` found: the document that `--json` prints."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from flashcp.sources import sources
from flashcp.ties import ties
from flashcp_cli.plan_memory import rank_bytes

if TYPE_CHECKING:
    from flashcp.comparison import Comparison, Outcome
    from flashcp.plans import Plan
    from flashcp.prediction import Setting
    from traces.packing import Packing
    from traces.trace import Trace

BASELINES = ("per-seq", "per-doc")


def summarise(
    trace: "Trace",
    packing: "Packing",
    comparison: "Comparison",
    setting: "Setting",
    options: dict[str, Any],
    pictured: "dict[str, Plan]",
) -> dict[str, Any]:
    """Return what `flashcp plan` reports, ready for JSON: shares, tokens and microseconds.

    Args:
        trace: the trace.
        packing: its packs.
        comparison: every strategy on every pack.
        setting: hardware and model shape.
        options: the command's.
        pictured: by strategy, the plan of the pictured pack, whose sources stand for all packs'.
    """
    totals = {name: float(o.total_us.mean()) for name, o in comparison.outcomes.items()}
    bound_us = float(comparison.bound_us.mean())
    linear_us = _linear_us(packing, setting, options["cp"])
    strategies = {
        name: _outcome(outcome)
        | {
            "speedup_over": {
                b: totals[b] / totals[name] for b in BASELINES if b in totals and totals[name] > 0
            },
            # A profile of zeros is valid, and bounds nothing.
            "over_bound": totals[name] / bound_us if bound_us > 0 else None,
            "layer_us": None if linear_us is None else totals[name] + linear_us,
            "sources": {
                part: source.label for part, source in sources(pictured[name], setting).items()
            },
        }
        for name, outcome in comparison.outcomes.items()
    }
    return {
        "trace": {
            "name": trace.name,
            "documents": trace.documents,
            "tokens": trace.tokens,
            "fingerprint": trace.fingerprint,
            "note": trace.note,
        },
        "packing": {
            "by": options["pack_by"],
            "seed": None if options["corpus_order"] else options["seed"],
            "context_tokens": packing.context_tokens,
            "packs": len(packing),
            "documents_per_pack": packing.lengths.size / len(packing),
            "fill": packing.fill,
            "dropped_documents": packing.dropped_documents,
            "dropped_tokens": packing.dropped_tokens,
            "held_documents": packing.held_documents,
        },
        "cp": options["cp"],
        "ranks_per_node": setting.profile.network.per_node(options["cp"], setting.ranks_per_node),
        "hardware": setting.profile.name,
        "model": setting.model.to_json(),
        "copies": setting.copies,
        "plan_effort": options["plan_effort"],
        "balance": options["balance"],
        "strategies": strategies,
        "bound_us": bound_us,
        "linear_us": linear_us,
        "fastest": min(totals, key=totals.__getitem__),
        "chosen": options["strategy"],
        "ties": {name: asdict(each) for name, each in ties(comparison, packing).items()},
        "memory": _memory(comparison, setting, options["strategy"], pictured),
        "out": None if options["out"] is None else str(options["out"]),
    }


def _outcome(outcome: "Outcome") -> dict[str, Any]:
    return {
        "imbalance": {
            "mean": float(outcome.imbalance.mean()),
            "worst": float(outcome.imbalance.max()),
        },
        "moved_share": float(outcome.moved_share.mean()),
        "eq5_share": float(outcome.eq5_share.mean()),
        "needed_share": float(outcome.needed_share.mean()),
        "padded": float(outcome.padded.mean()),
        "across_tokens": float(outcome.across_tokens.mean()),
        "across_largest_tokens": float(outcome.across_largest_tokens.mean()),
        "shards_per_rank": float(outcome.shards_per_rank.mean()),
        "forward_us": float(outcome.forward_us.mean()),
        "backward_us": float(outcome.backward_us.mean()),
        "exchange_us": float(outcome.exchange_us.mean()),
        "copies_us": float(outcome.copies_us.mean()),
        "total_us": float(outcome.total_us.mean()),
        "forward_total_us": float(outcome.forward_total_us.mean()),
        "planning_us": {
            "p50": float(np.quantile(outcome.planning_us, 0.5)),
            "p99": float(np.quantile(outcome.planning_us, 0.99)),
        },
    }


def _memory(
    comparison: "Comparison", setting: "Setting", chosen: str, pictured: "dict[str, Plan]"
) -> dict[str, Any]:
    """Return bytes of one layer's attention: each rank's of the pictured pack, and the most."""
    ranks = rank_bytes(pictured[chosen], setting.model)
    largest = comparison.inspected[chosen]
    known = largest[np.isfinite(largest)]
    return {
        "picture_rank_bytes": None if ranks is None else ranks.tolist(),
        "largest_bytes": int(known.max()) if known.size else None,
        "packs": int(known.size),
    }


def _linear_us(packing: "Packing", setting: "Setting", cp: int) -> float | None:
    """Return the linear layers' time, forward + backward, of a rank's mean tokens."""
    if setting.model.attention_only:
        return None
    tokens = packing.tokens / len(packing) / cp
    return setting.profile.linear_us(setting.model.linear_flops_per_token() * tokens).us
