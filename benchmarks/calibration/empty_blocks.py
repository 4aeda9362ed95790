"""Whether calibrated calls tell what empty blocks take: python empty_blocks.py [DRAWS].

No GPU is needed. The truth is the model fitted to the calls that the second calibration of an H200
measured (benchmarks/gpu), with a time of an empty block set by us. Calls are chosen as
`flashcp calibrate` does on a GPU, with its four kinds of calls alone (as it did before) and with
every sixth a long segment beside many short ones; the truth gives their times, and each draw
multiplies them by residuals of the measured calls, drawn at random. Then all is fitted anew.

Printed by effort and head size:

- the device's time of one round of all calls, forward and backward, as the truth has it, and the
  largest share that empty blocks take of a call's backward;
- for each true time of a block of 128 keys the fitted over the true one (5th, 50th and 95th
  percentile of draws) and the share of draws within 25%;
- what else backward's fit finds: the mean absolute error on 200 other calls of the four kinds, and
  the median error (of logarithms, absolute) of each coefficient that backward has.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from costmodel import load_profile
from costmodel.calibrated import fit_points, of, traits_of
from costmodel.calibrated_points import AttentionPoint
from costmodel.fit_attention import fit_attention, predict_us
from executor.calibration.request import EFFORTS
from executor.calibration.selection import choose
from tests.costmodel.calibration_points import timed

STORED = Path(__file__).parents[1] / "gpu" / "results" / "2026-11-26-h200-second" / "profile.json"
BLOCK = 128  # keys
TRUE_US = (0.2, 0.4, 0.9, 2.0)
USUAL_US = 0.9  # one of them, of which the other figures are
WITHIN = 0.25
MOST_BYTES = 6e10
UNSEEN = slice(300, 500)  # of the calls of the four kinds: beyond those of any effort
TOLD = (
    "launch_us", "kv_tile_us", "query_tile_us", "query_row_us", "tail", "throttle",
    "throttle_after_us", "l2_mb", "row_spill_us_per_mb",
)  # fmt: skip


def with_block_us(model, block_us):
    """Return the model with this time of an empty block of 128 keys."""
    fits = tuple(
        replace(f, coefficients=replace(f.coefficients, empty_tile_us=block_us * f.tile_k / BLOCK))
        if f.direction == "backward"
        else f
        for f in model.fits
    )
    return replace(model, fits=fits)


def fits_of(calls, truth, residuals, draws):
    """Yield the model that each draw of residuals makes of the calls."""
    rng = np.random.default_rng(0)
    forward = timed(calls[:12], "forward", truth)  # a model needs some; no backward fit reads them
    backward = timed(calls, "backward", truth)
    for _ in range(draws):
        factors = np.exp(rng.choice(residuals, len(calls))).tolist()
        noisy = [replace(call, us=call.us * f) for call, f in zip(backward, factors, strict=True)]
        yield fit_attention(
            forward + noisy,
            kernel_name=truth.kernel,
            sms=truth.sms,
            traits=traits_of(truth.kernel),
        )


def coefficients(model, head_dim):
    """Return backward's coefficients."""
    return model.fit(head_dim, "backward")[0].coefficients


def report(calls, unseen, model, residuals, draws):
    """Print what fits to these calls find."""
    head_dim = calls[0].head_dim
    truth = with_block_us(model, USUAL_US)
    forward, backward = (timed(calls, d, truth) for d in ("forward", "backward"))
    none = timed(calls, "backward", with_block_us(model, 0.0))
    share = max(1 - left.us / call.us for left, call in zip(none, backward, strict=True))
    seconds = sum(call.us for call in forward + backward) / 1e6
    print(f"    device {seconds:.2f} s a round, empty blocks up to {share:.0%} of a call")
    for true_us in TRUE_US:
        set_to = with_block_us(model, true_us)
        wanted = coefficients(set_to, head_dim).empty_tile_us
        fits = list(fits_of(calls, set_to, residuals, draws))
        if true_us == USUAL_US:
            usual = fits
        found = [coefficients(fit, head_dim).empty_tile_us / wanted for fit in fits]
        low, middle, high = np.quantile(found, (0.05, 0.5, 0.95))
        near = np.mean(np.abs(np.array(found) - 1) <= WITHIN)
        print(f"    {true_us} us: {low:.2f} {middle:.2f} {high:.2f} of it, {near:.0%} within 25%")
    others = timed(unseen, "backward", truth)
    off = [np.abs(predict_us(f, others) / [c.us for c in others] - 1).mean() for f in usual]
    print(f"    unseen calls of the four kinds: {np.mean(off):.2%}")
    for name in TOLD:
        values = [getattr(coefficients(fit, head_dim), name) for fit in usual]
        error = np.median(
            np.abs(np.log(values) - np.log(getattr(coefficients(truth, head_dim), name)))
        )
        print(f"      {name:20} {error:.3f}")


def main(draws):
    """Print all."""
    profile = load_profile(str(STORED))
    points = of(profile.points, AttentionPoint)
    model = fit_points(points, profile.attention.kernel, profile.attention.sms)
    for full in (False, True):
        effort = EFFORTS["cuda", full]
        for head_dim in effort.head_dims:
            mine = [p for p in points if (p.direction, p.head_dim) == ("backward", head_dim)]
            fitted = predict_us(model, [p.call() for p in mine])
            residuals = np.log([p.us for p in mine] / fitted)
            # The largest of the stored calls took what quick effort allowed; full allows more.
            ratio = effort.call_us / EFFORTS["cuda", False].call_us
            most = ratio * max(
                p.q_heads * q * (2 * k - q + 1) // 2
                for p in mine
                for q, k in zip(p.q_lens, p.k_lens, strict=True)
            )
            unseen = choose(UNSEEN.stop, head_dim, most, MOST_BYTES)[UNSEEN]
            for lopsided in (False, True):
                calls = choose(
                    effort.attention_calls, head_dim, most, MOST_BYTES, lopsided=lopsided
                )
                kinds = "with the fifth" if lopsided else "four kinds"
                print(
                    f"{len(calls)} calls, head size {head_dim}, {kinds}, "
                    f"residuals {np.abs(residuals).mean():.1%} in the mean"
                )
                report(calls, unseen, model, residuals, draws)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
