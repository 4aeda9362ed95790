"""Measures this machine: attention, collectives, copies, launches and what they cost each other.

`calibrate(request)` starts the ranks, or is one of torchrun's, and returns the points with the
conditions that they were measured under; `costmodel.calibrated` makes a profile of them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from executor.calibration.request import Request
    from executor.calibration.session import calibrate

__all__ = ["Request", "calibrate"]

_HOMES = {"Request": "executor.calibration.request", "calibrate": "executor.calibration.session"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'executor.calibration' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
