"""Choices of how a plan is executed that the plan itself does not make."""

from dataclasses import dataclass
from typing import Literal

Copies = Literal["published", "in-place"]
Gradients = Literal["all-to-all", "reduce-scatter"]


@dataclass(frozen=True)
class Ways:
    """How KV is copied around the kernel, and how all-gathered KV's gradients go home.

    Attributes:
        copies: see `executor.prepare`.
        gradients: see `executor.prepare`.
    """

    copies: Copies = "in-place"
    gradients: Gradients = "all-to-all"
