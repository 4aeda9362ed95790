"""What the attention model errs by on calls that it was not fitted to; see docs/research.

Prints, for each GPU and head size of the shipped table: errors by cross-validation, errors where
whole regions are left out, errors by the number of calibration calls, and errors with other tiles.
Sequences from 64 tokens unless said. Run: python benchmarks/costmodel/attention_models.py
"""

import time

import numpy as np
from numba import njit

from costmodel import attention_kernel as kernel
from costmodel.attention_calls import KERNELS, SMS, KernelTraits, calls_from_table
from costmodel.fit_attention import cross_validate, fit_attention, predict_us, shuffled
from costmodel.tables import attention_table

REGIONS = {
    "lengths from 8192": lambda t: t["seq_len"] >= 8192,
    "lengths to 256": lambda t: t["seq_len"] <= 256,
    "batches from 64": lambda t: t["batch_size"] >= 64,
    "batches of 1": lambda t: t["batch_size"] == 1,
    "plain multi-head": lambda t: t["q_heads"] == t["kv_heads"],
    "q heads from 48": lambda t: t["q_heads"] >= 48,
}
TILES = {
    ("h200-sxm", 128): [(128, 128), (128, 176), (128, 96), (64, 128), (192, 128)],
    ("h200-sxm", 64): [(192, 128), (192, 192), (128, 128), (256, 128)],
    ("a100-sxm", 128): [(64, 128), (128, 64), (64, 64), (128, 128)],
}


def summary(error):
    """Return mean, p90 and bias of relative errors, in percent."""
    size = np.abs(error)
    return (
        f"{100 * size.mean():5.2f} {100 * np.quantile(size, 0.9):6.2f} {100 * error.mean():+6.2f}"
    )


def fit_some(calls, rows, gpu, traits):
    """Fit to the calls of these rows."""
    return fit_attention([calls[i] for i in rows], kernel_name="any", sms=SMS[gpu], traits=traits)


def errors(model, calls, rows):
    """Return the relative errors of the calls of these rows."""
    chosen = [calls[i] for i in rows]
    return predict_us(model, chosen) / np.array([call.us for call in chosen]) - 1


def held_out(table, name):
    """Print cross-validated errors by length, then with whole values and regions left out."""
    random = cross_validate(table)
    for low, high in (
        (64, 1 << 30),
        (16, 63),
        (64, 511),
        (512, 2047),
        (2048, 8191),
        (8192, 1 << 30),
    ):
        part = random[random["seq_len"].between(low, high)]
        print(
            f"{name:12} 5 folds, {low}..{high if high < 1 << 30 else ''}".ljust(50),
            summary(part["error"]),
        )
    table = table[table["seq_len"] >= 64].reset_index(drop=True)
    table["pair"] = table["q_heads"] * 1000 + table["kv_heads"]
    for by, folds in (("pair", 5), ("seq_len", 99)):
        error = cross_validate(table, folds, by=by)["error"]
        print(f"{name:12} folds of {by}".ljust(50), summary(error))
    calls = calls_from_table(table)
    traits = KERNELS[table["kernel"].iloc[0]]
    for region, chosen in REGIONS.items():
        held, known = np.flatnonzero(chosen(table)), np.flatnonzero(~chosen(table))
        model = fit_some(calls, known, table["gpu"].iloc[0], traits)
        print(f"{name:12} {region} left out".ljust(50), summary(errors(model, calls, held)))


def calibration(table, name):
    """Print errors by the number of calls that were fitted: the mean of 12 draws, and the worst."""
    table = table[table["seq_len"] >= 64].reset_index(drop=True)
    calls, traits = calls_from_table(table), KERNELS[table["kernel"].iloc[0]]
    for count in (6, 12, 24, 48, 96):
        means = []
        for seed in range(12):
            rows = shuffled(len(calls), seed)
            model = fit_some(calls, rows[:count], table["gpu"].iloc[0], traits)
            means.append(np.abs(errors(model, calls, rows[count::3])).mean())
        print(
            f"{name:12} {count:3} calls: {100 * np.mean(means):.1f} (worst {100 * max(means):.1f})"
        )


def tiles(gpu, head_dim):
    """Print in-sample errors with other tiles, and without packing or splitting."""
    table = attention_table(gpu).query(f"head_dim == {head_dim} and seq_len >= 64")
    calls, traits = calls_from_table(table), KERNELS[table["kernel"].iloc[0]]
    tries = {
        f"tile {q}x{k}": KernelTraits({head_dim: (q, k)}, traits.packs_gqa, traits.splits_keys)
        for q, k in TILES[gpu, head_dim]
    }
    if traits.packs_gqa:
        tries["not packed"] = KernelTraits(traits.tiles, packs_gqa=False, splits_keys=True)
        tries["not split"] = KernelTraits(traits.tiles, packs_gqa=True, splits_keys=False)
    for label, tried in tries.items():
        rows = range(len(calls))
        error = errors(fit_some(calls, rows, gpu, tried), calls, rows)
        print(f"{gpu} {head_dim:3} {label}".ljust(50), summary(error))


def speed():
    """Print nanoseconds a segment and a combination."""
    table = attention_table("h100-sxm").query("head_dim == 128")
    model = fit_attention(table)
    random = np.random.default_rng(0)
    q_lens = random.integers(1, 20_000, 1_000_000)
    k_lens = q_lens + random.integers(0, 20_000, 1_000_000)
    splits = np.arange(0, 1_000_001, 50)

    @njit
    def combinations(parameters):
        total = 0.0
        for i in range(1_000_000):
            total += kernel.combine(100.0 + i, 9000.0 + i, 16384.0, 64.0, 10.0, 10.0, parameters)
        return total

    for q_heads, kv_heads in ((32, 32), (32, 8), (40, 8)):
        parameters = model.parameters(q_heads, kv_heads, 128, "forward", cache_write=False)
        times = []
        for call in (lambda p: kernel.attention_us(q_lens, k_lens, splits, p), combinations):
            call(parameters)
            start = time.perf_counter()
            call(parameters)
            times.append(1e3 * (time.perf_counter() - start))
        print(f"{q_heads}:{kv_heads} heads: {times[0]:.0f} ns a segment, {times[1]:.0f} ns a call")


def main():
    """Print everything; takes about a minute."""
    print("mean, p90 and bias in percent".ljust(50))
    groups = attention_table().groupby(["gpu", "head_dim"])
    for (gpu, head_dim), table in groups:
        held_out(table.reset_index(drop=True), f"{gpu[:4]} {head_dim}")
    for (gpu, head_dim), table in groups:
        calibration(table, f"{gpu[:4]} {head_dim}")
    for gpu, head_dim in TILES:
        tiles(gpu, head_dim)
    speed()


if __name__ == "__main__":
    main()
