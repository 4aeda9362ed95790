"""What the bundled profiles predict today, kept so that no prediction changes unnoticed.

    python benchmarks/calibration/expectations.py            says what has changed
    python benchmarks/calibration/expectations.py --renew    takes today's predictions

The file beside it holds attention calls, exchanges, copies and whole plans as every bundled profile
predicts them. A test compares; whoever changes a prediction on purpose renews the file in the same
commit, so that the change stands in the diff.
"""

import json
import sys
from pathlib import Path

import numpy as np

from costmodel import load_model, load_profile
from costmodel.profile_file import bundled_profiles
from flashcp.prediction import Setting, predict
from flashcp.strategies import shard

PATH = Path(__file__).with_name("expected_predictions.json")
STRATEGIES = ("ring", "zigzag", "per-seq", "per-doc", "flashcp")
TOLERANCE = 1e-9  # the same sums in another order, nothing more
CALLS = {
    "one of 1k": ([1024], [1024]),
    "one of 128k": ([131072], [131072]),
    "48 of 333": ([333] * 48, [333] * 48),
    "mixed, prefixes": ([17, 512, 4096, 1000], [17, 9000, 4096, 65536]),
}
HEADS = ((32, 8, 128), (32, 32, 128), (16, 2, 64))
SIZES = (0, 4096, 10**6, 2**26, 2**31)
PACK = [9000, 4000, 1500, 800, 600, 300, 120, 40, 16, 8]


def predictions() -> dict[str, float]:
    """Return every prediction that is kept, in microseconds, by name."""
    found = {}
    for name in bundled_profiles():
        profile = load_profile(name)
        for label, (q_lens, k_lens) in CALLS.items():
            for q_heads, kv_heads, head_dim in HEADS:
                for direction in ("forward", "backward"):
                    shape = f"{q_heads}:{kv_heads} heads of {head_dim}"
                    found[f"{name}, {direction}, {shape}, {label}"] = profile.attention_us(
                        q_lens, k_lens, q_heads=q_heads, kv_heads=kv_heads, head_dim=head_dim,
                        direction=direction, cache_write=False,
                    ).us  # fmt: skip
        for collective in ("all_gather", "reduce_scatter", "all_to_all", "send_recv"):
            for ranks in (2, 5, 8, 16):
                for size in SIZES:
                    us = profile.collective_us(collective, size, ranks).us
                    found[f"{name}, {collective}, {ranks} ranks, {size} bytes"] = us
        for mode in ("per-shard", "in-place"):
            found[f"{name}, copies, {mode}"] = profile.copy_us(2e9, 37, mode).us
        setting = Setting(profile=profile, model=load_model("llama3-8b"))
        for strategy in STRATEGIES:
            made = shard(np.array(PACK), 8, strategy)
            found[f"{name}, plan, {strategy}"] = predict(made, setting).total_us
    return found


def changes(now: dict[str, float]) -> list[str]:
    """Return a line for each prediction that is not what the file holds."""
    kept = json.loads(PATH.read_text())
    lines = [f"{name}: no longer predicted" for name in kept if name not in now]
    lines += [f"{name}: not in the file" for name in now if name not in kept]
    for name in kept.keys() & now.keys():
        before, after = kept[name], now[name]
        if abs(after - before) > TOLERANCE * max(abs(before), 1e-9):
            lines.append(f"{name}: {before:.6g} us before, {after:.6g} us now")
    return sorted(lines)


def main() -> None:
    """Compare, or renew."""
    now = predictions()
    if "--renew" in sys.argv[1:]:
        PATH.write_text(json.dumps(now, indent=1) + "\n")
        print(f"wrote {len(now)} predictions to {PATH.name}")
        return
    found = changes(now)
    print("\n".join(found) or f"{len(now)} predictions, none changed")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
