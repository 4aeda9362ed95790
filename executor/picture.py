"""One Perfetto file with every rank's measured pieces beside its predicted ones.

Each rank of each strategy is two tracks' groups, measured and predicted, one above the other. Both
begin at zero; backward begins when the slowest rank's forward has ended.
"""

from typing import Any

from executor.job import Job
from flashcp.prediction import Setting, predict


def chrome_trace(job: Job, results: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Return the picture in the Chrome/Perfetto trace format, times in microseconds."""
    events: list[dict[str, Any]] = []
    group = 0
    for name, plan in zip(job.names, job.plans, strict=True):
        rows = results["plans"].get(name, [])
        if not rows:
            continue
        ends = (end for row in rows for _, _, _, end in row["pieces"]["forward"])
        forward_us = max(ends, default=0.0)
        entries = predict(plan, setting).timeline.entries
        for rank, row in enumerate(rows):
            measured = [
                (part, piece, begin + offset, end + offset)
                for direction, offset in (("forward", 0.0), ("backward", forward_us))
                for part, piece, begin, end in row["pieces"][direction]
            ]
            predicted = [
                (e.kind.value, e.name, float(e.start_us[rank]), float(e.end_us[rank]))
                for e in entries
                if e.end_us[rank] > e.start_us[rank]
            ]
            for what, listed in (("measured", measured), ("predicted", predicted)):
                events += _group(group, f"{name}, rank {rank}, {what}", listed)
                group += 1
    return {"traceEvents": events, "displayTimeUnit": "ms", "distributedInfo": {"rank": 0}}


def _group(
    number: int, title: str, listed: list[tuple[str, str, float, float]]
) -> list[dict[str, Any]]:
    """Return the events of one process: tracks of compute, exchange and, if any, the host."""
    tracks = ["compute", "exchange", *(["host"] if any(one[0] == "host" for one in listed) else [])]
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": number, "name": "process_name", "args": {"name": title}},
        {"ph": "M", "pid": number, "name": "process_sort_index", "args": {"sort_index": number}},
    ]
    for track, name in enumerate(tracks):
        args = {"name": name}
        events.append({"ph": "M", "pid": number, "tid": track, "name": "thread_name", "args": args})
    events += [
        {
            "ph": "X",
            "pid": number,
            "tid": tracks.index(part) if part in tracks else 0,
            "name": name,
            "cat": part,
            "ts": begin,
            "dur": end - begin,
        }
        for part, name, begin, end in listed
    ]
    return events
