"""A time together with where it came from.

A prediction that does not say whether it was measured is a prediction that nobody can trust, so
times travel as `Estimate`s: adding two keeps the less trustworthy of their sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Source(IntEnum):
    """Where a number came from, the most trustworthy first."""

    MEASURED = 0
    """A measured point, or a parameter fitted to measurements."""
    INTERPOLATED = 1
    """Between measured points."""
    EXTRAPOLATED = 2
    """Outside the measured range, or derived from the measurement of something alike."""
    REPORTED = 3
    """From somebody's publication or data sheet; not measured by us."""

    @property
    def label(self) -> str:
        """Return the word that files and tables show."""
        return self.name.lower()

    @classmethod
    def from_label(cls, label: str) -> Source:
        """Return the source that `label` names; raises KeyError for another word."""
        return {source.label: source for source in cls}[label]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A time in microseconds and where it came from."""

    us: float
    source: Source

    def __add__(self, other: Estimate) -> Estimate:
        """Return the time of both, one after the other; the worse source stays."""
        return Estimate(self.us + other.us, max(self.source, other.source))

    def scaled(self, factor: float, source: Source = Source.MEASURED) -> Estimate:
        """Return the time multiplied by `factor`, which is known from `source`."""
        return Estimate(self.us * factor, max(self.source, source))

    @staticmethod
    def total(estimates: Iterable[Estimate]) -> Estimate:
        """Return the sum; of nothing: zero, measured."""
        result = NOTHING
        for estimate in estimates:
            result = result + estimate
        return result


NOTHING = Estimate(0.0, Source.MEASURED)
