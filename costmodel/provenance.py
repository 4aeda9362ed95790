"""Where a profile came from: what was measured, on what, with what, and how well it predicts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from costmodel.held_out import HeldOutError

if TYPE_CHECKING:
    from costmodel.checks import Fields


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The conditions of the measurements; None where they were not recorded.

    Attributes:
        device: the GPU, and how its node is wired.
        driver: version of the GPU's driver.
        cuda: version of CUDA.
        torch: version of PyTorch.
        nccl: version of NCCL.
        attention_kernel: attention kernel and its generation.
        attention_kernel_version: its release.
        launch_mode: how ranks were started for the collectives; sets their latency.
        date: day of the measurement, YYYY-MM-DD.
        data: the tables that were fitted, and their licence.
        attention_samples: measured attention calls that were fitted.
        collective_samples: measured collectives that were fitted.
        held_out: errors on points left out of the fit.
    """

    device: str
    driver: str | None
    cuda: str | None
    torch: str | None
    nccl: str | None
    attention_kernel: str
    attention_kernel_version: str | None
    launch_mode: str
    date: str | None
    data: str
    attention_samples: int
    collective_samples: int
    held_out: tuple[HeldOutError, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the provenance as it stands in a profile."""
        return {**asdict(self), "held_out": [error.to_json() for error in self.held_out]}

    @classmethod
    def from_json(cls, part: Fields) -> Provenance:
        """Read the provenance; raises ProfileError naming the field and value."""
        part.only(field.name for field in fields(cls))
        return cls(
            device=part.text("device"),
            driver=part.text_or_none("driver"),
            cuda=part.text_or_none("cuda"),
            torch=part.text_or_none("torch"),
            nccl=part.text_or_none("nccl"),
            attention_kernel=part.text("attention_kernel"),
            attention_kernel_version=part.text_or_none("attention_kernel_version"),
            launch_mode=part.text("launch_mode"),
            date=part.text_or_none("date"),
            data=part.text("data"),
            attention_samples=part.whole("attention_samples"),
            collective_samples=part.whole("collective_samples"),
            held_out=tuple(HeldOutError.from_json(item) for item in part.parts("held_out")),
        )
