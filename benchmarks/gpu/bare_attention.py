"""How near a rank's attention comes to the kernel alone: the same segments in one bare call.

    python benchmarks/gpu/bare_attention.py OUT.json

For packs of 128k at CP 4 and 8 the calls of each rank, as the executor makes them (keys read where
they landed, output written into its place), are timed against one call of the same kernel on fresh
contiguous tensors of the same segments; forward, medians of 10 after 3. The ratio is the bare
call's time over the executor's, so 1 is the kernel's own speed. A plan by a ring is passed over.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

import flashcp
from costmodel import load_model, load_profile
from executor.handle import prepare
from executor.joined import Call, forward
from executor.kernels import Segments, select
from executor.record import Clock, Part
from flashcp.exchange import Exchange
from flashcp.prediction import Setting

REPETITIONS, WARMUPS = 10, 3


def main(out: Path) -> None:
    """Time every rank of every pack and write one row each."""
    device = torch.device("cuda")
    rows = []
    for model_name in ("paper-h32", "llama3-8b"):
        model = load_model(model_name)
        setting = Setting(profile=load_profile("h100-sxm"), model=model, copies="in-place")
        kernel = select(device, torch.bfloat16, model.head_dim)
        for trace in ("wlb-llm", "code", "papers"):
            packing = flashcp.pack(flashcp.load_trace(trace), 131072, packs=1)
            for cp in (4, 8):
                plan = flashcp.plan(packing.document_lengths(0), cp, "auto", setting)
                if plan.exchange is Exchange.RING:
                    continue
                for rank in range(cp):
                    used, bare = times(plan, rank, model, kernel, device)
                    row = {
                        "model": model_name, "trace": trace, "cp": cp, "rank": rank,
                        "executor_us": used, "bare_us": bare, "ratio": bare / used,
                    }  # fmt: skip
                    rows.append(row)
    out.write_text(json.dumps({"kernel": kernel.name, "rows": rows}))
    ratios = np.array([row["ratio"] for row in rows])
    print(f"{kernel.name}: bare / executor, mean {ratios.mean():.3f}, least {ratios.min():.3f}")


def times(plan, rank, model, kernel, device):
    """Return the median microseconds of one rank's forward attention, and of one bare call."""
    handle = prepare(plan, rank, device)
    schedule = handle.schedule
    tokens = handle.tokens

    def draw(rows, heads):
        return torch.randn(rows, heads, model.head_dim, device=device, dtype=torch.bfloat16)

    q, k, v = (
        draw(tokens, model.q_heads),
        draw(tokens, model.kv_heads),
        draw(tokens, model.kv_heads),
    )
    used, bare = [], []
    mine = np.flatnonzero(plan.rank == rank)
    q_lens, k_lens = (plan.stop - plan.start)[mine], plan.stop[mine]
    segments = Segments.of(q_lens.astype(np.int64), k_lens.astype(np.int64), device)
    keys, values = (draw(int(k_lens.sum()), model.kv_heads) for _ in range(2))
    for repetition in range(-WARMUPS, REPETITIONS):
        clock = Clock(device)
        run = forward(schedule, Call(kernel, model.head_dim**-0.5, clock), q, k, v)
        try:
            while True:
                next(run)  # nothing is exchanged: only the attention's time is wanted
        except StopIteration:
            pass
        pieces = clock.pieces()
        single = Clock(device)
        with single.piece(Part.FORWARD, "bare"):
            kernel.forward(q, keys, values, segments, model.head_dim**-0.5)
        if repetition >= 0:
            used.append(sum(p.end_us - p.start_us for p in pieces if p.part is Part.FORWARD))
            bare.append(sum(p.end_us - p.start_us for p in single.pieces()))
    return float(np.median(used)), float(np.median(bare))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
