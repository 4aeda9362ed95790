"""Sets what was measured beside what was predicted.

A plan's time is of forward plus backward, each of its slowest rank; of repetitions the median. An
error is signed: predicted over measured, less one. Where the device is not the profile's, times
cannot be held against each other: then only what does not depend on the device's speed is compared,
each rank's share of the time and the strategies' order.
"""

from typing import Any

import numpy as np

from costmodel.calibrated_conditions import differences, same_device
from executor.job import Job
from executor.memory import memory_bytes
from executor.planned import planned_bytes
from executor.record import Part
from executor.rows_of_ranks import DIRECTIONS, rank_parts
from flashcp.prediction import Prediction, Setting, predict

# Parts that are both predicted and measured.
_COMPARED = ("forward", "backward", "copies", "merge", "exposed exchange", "total")
ELEMENT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}


def report(job: Job, results: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Return the report of a run: `environment`, `comparable`, `plans` by name, `winner`, ...

    Args:
        job: what was run.
        results: what `run_job` or `emulate_job` returned.
        setting: what predictions are for.
    """
    comparable = is_comparable(results["environment"], setting)
    plans = {}
    for name, plan in zip(job.names, job.plans, strict=True):
        if name not in results["plans"]:
            continue
        rows = results["plans"][name]
        prediction = predict(plan, setting)
        bytes_ = planned_bytes(
            plan,
            kv_heads=job.model.kv_heads,
            head_dim=job.model.head_dim,
            element_bytes=ELEMENT_BYTES[job.options.dtype],
            gradients=job.options.gradients,
        )
        memory = memory_bytes(plan, job.model)
        predicted = predicted_ranks(prediction)
        ranks = [
            _rank(row, predicted[rank], int(bytes_[rank]), int(memory[rank]))
            for rank, row in enumerate(rows)
        ]
        plans[name] = _plan(plan, rows, ranks, comparable=comparable)
    return {
        "environment": results["environment"],
        "hardware": setting.profile.name,
        "comparable": comparable,
        "profile_differences": differences(
            setting.profile, results["environment"] | {"dtype": job.options.dtype}
        ),
        "model": job.model.to_json(),
        "dtype": job.options.dtype,
        "cp": job.cp,
        "repetitions": job.options.repetitions,
        "copies": job.options.copies,
        "gradients": job.options.gradients,
        "plans": plans,
        "skipped": results.get("skipped", {}),
        "winner": _winner(plans),
    }


def is_comparable(environment: dict[str, Any], setting: Setting) -> bool:
    """Tell whether times measured here may be held against the profile's."""
    return same_device(setting.profile, environment)


def _rank(
    row: dict[str, Any], predicted: dict[str, float], planned: int, memory: int
) -> dict[str, Any]:
    """Return one rank's line: medians, spread, prediction and bytes."""
    totals = np.add(row["forward_us"], row["backward_us"])
    measured = {"forward_total": _median(row["forward_us"]), "total": float(np.median(totals))}
    for direction in DIRECTIONS:
        parts = row["parts"][direction]
        measured[direction] = _median(parts[direction])
    for part in (Part.COPIES, Part.MERGE, Part.EXCHANGE):
        both = np.add(row["parts"]["forward"][part], row["parts"]["backward"][part])
        name = "exposed exchange" if part is Part.EXCHANGE else part.value
        measured[name] = float(np.median(both))
    named = ("forward", "backward", "copies", "merge", "exposed exchange")
    measured["other"] = max(measured["total"] - sum(measured[name] for name in named), 0.0)
    return {
        "rank": row["rank"],
        "tokens": row["tokens"],
        "measured_us": measured,
        "spread_us": [float(totals.min()), float(totals.max())],
        "host_us": row["host_us"],
        "exchange_us": row["exchange_us"],
        "predicted_us": predicted,
        "sent_bytes": row["sent_bytes"],
        "planned_bytes": planned,
        "memory_bytes": memory,
    }


def _plan(
    plan: Any, rows: list[dict[str, Any]], ranks: list[dict[str, Any]], *, comparable: bool
) -> dict[str, Any]:
    measured_us = sum(
        float(np.median(np.max([row[f"{d}_us"] for row in rows], axis=0))) for d in DIRECTIONS
    )
    predicted_us = sum(
        max(rank["predicted_us"][name] for rank in ranks)
        for name in ("forward_total", "backward_total")
    )
    attention = np.array(
        [r["measured_us"]["forward"] + r["measured_us"]["backward"] for r in ranks]
    )
    expected = np.array(
        [r["predicted_us"]["forward"] + r["predicted_us"]["backward"] for r in ranks]
    )
    shares = attention / attention.mean() - expected / expected.mean()
    errors = None
    if comparable:
        errors = {
            "slowest rank": predicted_us / measured_us - 1,
            "ranks": [
                {
                    name: r["predicted_us"][name] / r["measured_us"][name] - 1
                    for name in _COMPARED
                    if r["measured_us"][name] > 0
                }
                for r in ranks
            ],
        }
    verification = rows[0]["verification"]
    sent_as_planned = all(r["sent_bytes"] == r["planned_bytes"] for r in ranks)
    return {
        "strategy": plan.strategy,
        "exchange": plan.exchange.value,
        "overlap": plan.overlap,
        "fingerprint": plan.fingerprint,
        "measured_us": measured_us,
        "predicted_us": predicted_us,
        "attention_imbalance": {
            "measured": float(attention.max() / attention.mean()),
            "predicted": float(expected.max() / expected.mean()),
        },
        "largest_share_error": float(np.abs(shares).max()),
        "errors": errors,
        "ranks": ranks,
        "verification": verification,
        "sent_as_planned": sent_as_planned,
        "passed": sent_as_planned and (verification is None or verification["passed"]),
    }


def _winner(plans: dict[str, Any]) -> dict[str, Any]:
    """Return which strategy was fastest, which was to be, and how much slower that one was."""
    measured = min(plans, key=lambda name: plans[name]["measured_us"])
    predicted = min(plans, key=lambda name: plans[name]["predicted_us"])
    return {
        "measured": measured,
        "predicted": predicted,
        "won": measured == predicted,
        "behind": plans[predicted]["measured_us"] / plans[measured]["measured_us"] - 1,
    }


def predicted_ranks(prediction: Prediction) -> list[dict[str, float]]:
    """Return each rank's predicted parts under the names of the measured ones."""
    line = prediction.timeline
    split = sum(float(e.start_us.min()) < prediction.forward_total_us for e in line.entries)
    ranks = []
    for parts in rank_parts(line, split):
        forward, backward = parts["forward"], parts["backward"]
        ranks.append(
            {
                "forward_total": forward["total"],
                "backward_total": backward["total"],
                "total": forward["total"] + backward["total"],
                "forward": forward["forward"],
                "backward": backward["backward"],
                "copies": forward["copies"] + backward["copies"],
                "merge": forward["merge"] + backward["merge"],
                "exposed exchange": forward["exchange"] + backward["exchange"],
            }
        )
    return ranks


def _median(values: list[float]) -> float:
    return float(np.median(values))
