"""Prints one line a strategy from the results that run_all.sh saved: python summary.py FOLDER."""

import json
import sys
from pathlib import Path

import numpy as np


def main(folder: Path) -> None:
    """Print the table, then the errors of all predictions together."""
    errors, per_rank = [], []
    print("run                       strategy  measured ms  predicted ms    error  copies  checks")
    for path in sorted(folder.glob("*.run.json")):
        document = json.loads(path.read_text())
        for name, one in document["plans"].items():
            copies = max(
                (rank["measured_us"]["copies"] + rank["measured_us"]["merge"])
                / max(rank["measured_us"]["forward"] + rank["measured_us"]["backward"], 1e-9)
                for rank in one["ranks"]
            )
            error = f"{one['errors']['slowest rank']:+8.1%}" if one["errors"] else "       -"
            print(
                f"{path.name.removesuffix('.run.json'):25} {name:9} "
                f"{one['measured_us'] / 1000:11.2f} {one['predicted_us'] / 1000:13.2f} {error} "
                f"{copies:7.1%}  {'passed' if one['passed'] else 'FAILED'}"
            )
            if one["errors"]:
                errors.append(abs(one["errors"]["slowest rank"]))
                per_rank += [abs(rank["total"]) for rank in one["errors"]["ranks"]]
        for name, why in document["skipped"].items():
            print(f"{path.name.removesuffix('.run.json'):25} {name:9} {why}")
    if errors:
        print(
            f"predicted against measured: mean {np.mean(errors):.1%} of the slowest rank; per rank "
            f"mean {np.mean(per_rank):.1%}, p90 {np.quantile(per_rank, 0.9):.1%}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
