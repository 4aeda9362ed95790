"""Single packs of the best configuration: shards, exchange matrix and timeline of every strategy.

Shards below a four-hundredth of a rank are drawn together with their neighbours as "many short
documents": thousands of slivers make a page heavy and show nothing.
"""

from typing import TYPE_CHECKING, Any

from flashcp.prediction import predict
from flashcp.simulation.matrix import exchange_matrix
from flashcp.simulation.switched import switched_plan

if TYPE_CHECKING:
    from flashcp.plans import Plan
    from flashcp.prediction import Setting
    from flashcp.simulation.run import Simulated
    from flashcp.simulation.sweep import Configuration

MOST_RANKS = 16
_SLIVER = 1 / 400


def pack_pictures(
    simulated: "Simulated", configuration: "Configuration", packs: tuple[int, ...]
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the plots `shards`, `matrix` and `timeline` of the first 16 ranks."""
    sweep = simulated.sweep
    setting, what_if = sweep.setting(configuration), sweep.what_if(configuration)
    found: dict[str, list[dict[str, Any]]] = {"shards": [], "matrix": [], "timeline": []}
    for pack in packs:
        lengths = simulated.packings[configuration.packing].document_lengths(pack)
        for strategy in sweep.strategies:
            made = switched_plan(
                lengths,
                configuration.cp,
                strategy,
                setting,
                what_if,
                sweep.plan_effort,
                sweep.balance,
            )
            key = {"pack": pack, "strategy": strategy}
            found["shards"] += [key | row for row in _shards(made)]
            found["matrix"] += [key | row for row in _matrix(made)]
            found["timeline"] += [key | row for row in _timeline(made, setting)]
    return found


def _shards(plan: "Plan") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    mean = plan.rank_work.mean()
    for rank in range(min(plan.cp, MOST_RANKS)):
        sliver = plan.rank_tokens[rank] * _SLIVER
        at = 0
        for shard in range(plan.rank_splits[rank], plan.rank_splits[rank + 1]):
            start, stop = int(plan.start[shard]), int(plan.stop[shard])
            document, tokens = int(plan.document[shard]), stop - start
            length = int(plan.lengths[document])
            short = tokens < sliver
            last = rows[-1] if rows and at else None
            if short and last and last["document"] == "many short documents":
                last["to"] += tokens
            else:
                rows.append(
                    {
                        "rank": rank,
                        "work": f"{plan.rank_work[rank] / mean:.3f}",
                        "from": at,
                        "to": at + tokens,
                        "document": "many short documents" if short else str(document),
                        "colour": -1 if short else document % 10,
                        "range": "" if short else f"[{start:,}, {stop:,}) of {length:,}",
                        "cut": "cut" if tokens < length else "whole",
                    }
                )
            at += tokens
    return rows


def _matrix(plan: "Plan") -> list[dict[str, Any]]:
    matrix = exchange_matrix(plan)[:MOST_RANKS, :MOST_RANKS]
    return [
        {"from": sender, "to": receiver, "tokens": int(tokens)}
        for sender, row in enumerate(matrix)
        for receiver, tokens in enumerate(row)
    ]


def _timeline(plan: "Plan", setting: "Setting") -> list[dict[str, Any]]:
    rows = []
    for entry in predict(plan, setting).timeline.entries:
        for rank in range(min(plan.cp, MOST_RANKS)):
            start, end = float(entry.start_us[rank]), float(entry.end_us[rank])
            if end > start:
                rows.append(
                    {
                        "rank": rank,
                        "stream": entry.stream.value,
                        "kind": entry.kind.value,
                        "name": entry.name,
                        "start": round(start / 1000, 4),
                        "end": round(end / 1000, 4),
                    }
                )
    return rows
