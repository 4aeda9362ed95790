"""Each rank's parts of a timeline, as a run reports its own."""

from typing import Any

import numpy as np

from costmodel.timeline import Entry, Kind, Stream, Timeline
from executor.record import Part
from flashcp.plans import Plan

DIRECTIONS = ("forward", "backward")


def rank_rows(
    plan: Plan, timelines: list[tuple[Timeline, int]], *, exchange_us: float
) -> list[dict[str, Any]]:
    """Return a row a rank, as `executor.measure.run_plan`'s, of one timeline a repetition.

    Args:
        plan: the plan.
        timelines: each with the number of its entries that are forward's.
        exchange_us: the exchange of both directions by itself.
    """
    parts = [rank_parts(line, split) for line, split in timelines]
    middle = int(np.argsort([line.total_us for line, _ in timelines])[len(timelines) // 2])
    rows = []
    for rank in range(plan.cp):
        one = [repetition[rank] for repetition in parts]
        rows.append(
            {
                "rank": rank,
                "tokens": int(plan.rank_tokens[rank]),
                **{f"{d}_us": [repetition[d]["total"] for repetition in one] for d in DIRECTIONS},
                "parts": {
                    d: {part.value: [repetition[d][part] for repetition in one] for part in Part}
                    for d in DIRECTIONS
                },
                "host_us": None,  # pieces are timed one by one
                "exchange_us": exchange_us,
                "pieces": pieces(*timelines[middle], rank),
            }
        )
    return rows


def rank_parts(line: Timeline, forward_entries: int) -> list[dict[str, dict[str, float]]]:
    """Return, for each rank and direction, its total and parts in microseconds.

    The exchange is what is left of the total: time in which the rank's compute stream had to wait.
    """
    boundary = max((float(e.end_us.max()) for e in line.entries[:forward_entries]), default=0.0)
    spans = (
        (line.entries[:forward_entries], 0.0),
        (line.entries[forward_entries:], boundary),
    )
    result = []
    for rank in range(line.ranks):
        found = {}
        for direction, (entries, begin) in zip(DIRECTIONS, spans, strict=True):
            times = dict.fromkeys((part.value for part in Part), 0.0)
            for entry in entries:
                if entry.stream is Stream.COMPUTE:
                    times[entry.kind.value] += float(entry.end_us[rank] - entry.start_us[rank])
            end = max((float(entry.end_us[rank]) for entry in entries), default=begin)
            total = max(end - begin, 0.0)
            times[Part.EXCHANGE] = max(total - sum(times.values()), 0.0)
            found[direction] = {"total": total, **times}
        result.append(found)
    return result


def pieces(line: Timeline, forward_entries: int, rank: int) -> dict[str, list[list[Any]]]:
    """Return a rank's pieces by direction, [part, name, start_us, end_us] from its beginning."""
    boundary = max((float(e.end_us.max()) for e in line.entries[:forward_entries]), default=0.0)

    def listed(entries: list[Entry], begin: float) -> list[list[Any]]:
        return [
            [e.kind.value, e.name, float(e.start_us[rank]) - begin, float(e.end_us[rank]) - begin]
            for e in entries
            if e.end_us[rank] > e.start_us[rank] and (e.kind is not Kind.EXCHANGE or line.ranks > 1)
        ]

    return {
        "forward": listed(line.entries[:forward_entries], 0.0),
        "backward": listed(line.entries[forward_entries:], boundary),
    }
