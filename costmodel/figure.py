"""One number of a profile together with its source and the reference it was taken from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmodel.checks import Fields
    from costmodel.estimate import Source


@dataclass(frozen=True)
class Figure:
    """A parameter: its value (the unit is in its name), where it came from, and who says so."""

    value: float
    source: Source
    reference: str

    def to_json(self) -> dict[str, Any]:
        """Return the figure as it stands in a profile."""
        return {
            "value": self.value,
            "source": self.source.label,
            "reference": self.reference,
        }

    @classmethod
    def from_json(
        cls, fields: Fields, key: str, *, least: float = 0.0, most: float = math.inf
    ) -> Figure:
        """Read the figure in field `key`, its value within [least, most].

        Raises:
            ProfileError: a part is missing, mistyped or out of bounds; names field and value.
        """
        part = fields.part(key)
        part.only(("value", "source", "reference"))
        return cls(
            part.number("value", least=least, most=most), part.source(), part.text("reference")
        )
