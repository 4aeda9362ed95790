"""The example in examples/ does what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "training_step.py"


@pytest.mark.parametrize("ranks", [2])
def test_a_training_step_under_context_parallelism_equals_one_process(ranks):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
         str(ranks), str(EXAMPLE)],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    losses = re.search(r"2 ranks ([\d.]+), on one process ([\d.]+)", done.stdout)
    assert float(losses[1]) == pytest.approx(float(losses[2]), rel=1e-12)
    assert float(done.stdout.split()[-1]) <= 1e-10
