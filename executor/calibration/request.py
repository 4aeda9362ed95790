"""What a calibration is asked to do, as it travels from the command to every rank."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_FILE = "request.json"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured.

    Attributes:
        attention_calls: calls of each head size; each is measured forward and backward.
        head_dims: head sizes.
        call_us: about how long the largest forward call may take.
        repeats: of each measurement, after one to warm up.
        transfer_bytes: sizes of each collective, in the order in which they are measured.
        copy_bytes: sizes of each kind of copy.
        attention_s: seconds after which no further attention call is begun.
        transfers_s: the same for exchanges.
    """

    attention_calls: int
    head_dims: tuple[int, ...]
    call_us: float
    repeats: int
    transfer_bytes: tuple[int, ...]
    copy_bytes: tuple[int, ...]
    attention_s: float
    transfers_s: float


def _powers(first: int, last: int, step: int = 1) -> tuple[int, ...]:
    """Return powers of two from 2^first to 2^last, the coarse ones first.

    A calibration that runs out of time then has the whole range, if fewer points of it.
    """
    powers = list(range(first, last + 1, step))
    return tuple(2**power for power in (*powers[::2], *powers[1::2]))


EFFORTS = {
    ("cpu", False): Effort(
        attention_calls=28,
        head_dims=(64, 128),
        call_us=4e4,
        repeats=3,
        transfer_bytes=_powers(12, 24),
        copy_bytes=_powers(21, 25),
        attention_s=19.0,
        transfers_s=18.0,
    ),
    ("cpu", True): Effort(
        attention_calls=96,
        head_dims=(64, 128),
        call_us=1.2e5,
        repeats=7,
        # Between powers of two as well, where what is sent outgrows the caches.
        transfer_bytes=(*_powers(10, 27), *(3 * size for size in _powers(19, 25))),
        copy_bytes=_powers(16, 27),
        attention_s=280.0,
        transfers_s=150.0,
    ),
    ("cuda", False): Effort(
        attention_calls=96,
        head_dims=(64, 128),
        call_us=2e4,
        repeats=7,
        transfer_bytes=_powers(14, 29),
        copy_bytes=_powers(20, 30, 2),
        attention_s=22.0,
        transfers_s=10.0,
    ),
    ("cuda", True): Effort(
        attention_calls=240,
        head_dims=(64, 128),
        call_us=4e4,
        repeats=15,
        transfer_bytes=_powers(9, 30),
        copy_bytes=_powers(16, 30),
        attention_s=330.0,
        transfers_s=120.0,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A calibration.

    Attributes:
        device: "cpu" or "cuda".
        ranks: processes that take part.
        effort: how much is measured.
        dtype: precision that attention is measured in.
        store: file that keeps what was measured until the profile is written.
        timeout_s: how long the ranks may take to find each other, or to answer.
    """

    device: str
    ranks: int
    effort: Effort
    dtype: str
    store: Path
    timeout_s: float = 120.0

    @property
    def cp(self) -> int:
        """Processes that the launcher starts."""
        return self.ranks

    def save(self, folder: Path) -> None:
        """Write the request into `folder`."""
        document = asdict(self) | {"store": str(self.store.absolute())}
        (folder / _FILE).write_text(json.dumps(document))


def load_request(folder: Path) -> Request:
    """Read the request that `Request.save` wrote into `folder`."""
    document: dict[str, Any] = json.loads((folder / _FILE).read_text())
    effort: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in document.pop("effort").items()
    }
    store = Path(document.pop("store"))
    return Request(**document, effort=Effort(**effort), store=store)
