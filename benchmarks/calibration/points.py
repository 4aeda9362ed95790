"""What the number of calibration points buys: errors of fits to few calls of the bundled tables.

For each GPU and head size, 12 draws of 6 to 96 random calls are fitted and every third of the rest
is predicted; then every tenth of the fitted calls is made two or three times as slow, and how far
the predictions move is shown. Run: python benchmarks/calibration/points.py
"""

from dataclasses import replace

import numpy as np

from costmodel.attention_calls import KERNELS, SMS, calls_from_table
from costmodel.fit_attention import fit_attention, predict_us, shuffled
from costmodel.tables import attention_table

COUNTS = (6, 12, 24, 48, 96)
DRAWS = 12


def fitted(calls, gpu, traits):
    """Fit to these calls."""
    return fit_attention(calls, kernel_name="any", sms=SMS[gpu], traits=traits)


def main():
    """Print the table."""
    print("GPU        head calls  mean  p90  bias  worst draw's mean  slow calls move it by")
    for (gpu, head_dim), table in attention_table().groupby(["gpu", "head_dim"]):
        rows = table[table["seq_len"] >= 64].reset_index(drop=True)
        calls, traits = calls_from_table(rows), KERNELS[rows["kernel"].iloc[0]]
        for count in COUNTS:
            errors, means, moved = [], [], []
            for seed in range(DRAWS):
                order = shuffled(len(calls), seed)
                known, held = (
                    [calls[i] for i in part] for part in (order[:count], order[count::3])
                )
                predicted = predict_us(fitted(known, gpu, traits), held)
                error = predicted / np.array([call.us for call in held]) - 1
                errors.append(error)
                means.append(np.abs(error).mean())
                slow = [
                    replace(call, us=call.us * (2 + i % 2)) if i % 10 == 4 else call
                    for i, call in enumerate(known)
                ]
                after = predict_us(fitted(slow, gpu, traits), held)
                moved.append(np.abs(after / predicted - 1).mean())
            size = np.abs(np.concatenate(errors))
            print(
                f"{gpu:10} {head_dim:4} {count:5} {100 * size.mean():5.1f}"
                f" {100 * np.quantile(size, 0.9):5.1f} {100 * np.concatenate(errors).mean():+5.1f}"
                f" {100 * max(means):13.1f} {100 * np.mean(moved):18.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
