"""Predictions change only on purpose: the stored ones are renewed in the same commit."""

import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "calibration" / "expectations.py"


@pytest.fixture(scope="module")
def expectations():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def now(expectations):
    return expectations["predictions"]()


def test_no_prediction_has_changed_without_being_renewed(expectations, now):
    changed = expectations["changes"](now)
    assert not changed, (
        f"{len(changed)} predictions changed, the first: {changed[0]}; if on purpose, run"
        " python benchmarks/calibration/expectations.py --renew"
    )


def test_a_prediction_off_by_a_millionth_is_noticed(expectations, now):
    name = next(iter(now))
    moved = now | {name: now[name] * (1 + 1e-6)}
    (line,) = expectations["changes"](moved)
    assert line.startswith(f"{name}: ")
    assert len(json.loads(expectations["PATH"].read_text())) == len(now)
