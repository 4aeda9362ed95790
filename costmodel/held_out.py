"""Errors of predictions for points that the fit had not seen, summed up."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from costmodel.checks import Fields


@dataclass(frozen=True, kw_only=True)
class HeldOutError:
    """How far predictions were from points that the fit had not seen.

    Attributes:
        what: "attention forward, head size 128", "all_gather", ...
        method: how points were held out.
        inside: whether they lie between points that were kept (else beyond all of them).
        bucket: which of them: "all", "sequences 64..511", "1 MB..8 MB", ...
        points: number of predictions.
        mean: mean absolute relative error; 0.05 is 5%.
        p50: its median.
        p90: its 90th percentile.
        worst: the largest.
        bias: mean signed relative error, positive where predictions are too long.
    """

    what: str
    method: str
    inside: bool
    bucket: str
    points: int
    mean: float
    p50: float
    p90: float
    worst: float
    bias: float

    @classmethod
    def of(
        cls, signed: ArrayLike, *, what: str, method: str, inside: bool, bucket: str = "all"
    ) -> HeldOutError:
        """Sum up signed relative errors (predicted / measured - 1), of at least one point."""
        errors = np.asarray(signed, np.float64)
        size = np.abs(errors)
        return cls(
            what=what,
            method=method,
            inside=inside,
            bucket=bucket,
            points=len(errors),
            mean=_short(size.mean()),
            p50=_short(np.quantile(size, 0.5)),
            p90=_short(np.quantile(size, 0.9)),
            worst=_short(size.max()),
            bias=_short(errors.mean()),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the errors as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, part: Fields) -> HeldOutError:
        """Read the errors; raises ProfileError naming the field and value."""
        part.only(field.name for field in fields(cls))
        return cls(
            what=part.text("what"),
            method=part.text("method"),
            inside=part.flag("inside"),
            bucket=part.text("bucket"),
            points=part.whole("points", least=1),
            mean=part.number("mean"),
            p50=part.number("p50"),
            p90=part.number("p90"),
            worst=part.number("worst"),
            bias=part.number("bias", least=-1.0),
        )


def _short(value: float) -> float:
    # Four digits: errors are known no better, and files stay the same on machines whose linear
    # algebra rounds differently in the last place.
    return round(float(value), 4)
