"""What is known of one attention kernel on one GPU: tiles, fitted coefficients, sampled calls.

`AttentionModel` turns a model shape into the array of parameters that the compiled evaluation in
`attention_kernel` takes, and says how far a call is from what was measured. Fitting lives in
`fit_attention`, the backward direction where nobody measured it in `attention_backward`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from costmodel import attention_kernel as kernel
from costmodel.attention_sampled import Sampled
from costmodel.checks import Fields
from costmodel.errors import ProfileError
from costmodel.estimate import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

ELEMENT_BYTES = 2  # bf16, which everything was measured with

MAX_HEADS = 4096
MAX_HEAD_DIM = 1024

# Query heads a tile with which FlashAttention-3 is fastest, on both GPUs and at both head sizes of
# the tables; why, we do not know (docs/research/attention-model.md).
FAST_PACKS = (4, 8, 16)

# torch's flash attention for CPUs, which cuts its work otherwise than GPUs' kernels do, and the
# rows and heads that its costs beside query-key pairs are worth where a fit does not say
# (docs/research/attention-model.md).
CPU_KERNEL = "torch-flash-cpu"
_CPU_ROWS = {"forward": (14, 8), "backward": (18, 14)}  # of a block, of a segment
_CPU_OPERATOR_HEADS = 16
_MOST_CPU_ROWS = 4096

# Of a key tile's time this share grows with the head size; the rest (softmax, masks) does not.
# Measured between head sizes 64 and 128 of FlashAttention-3 (docs/research/attention-model.md).
_HEAD_DIM_SHARE = 0.7


@dataclass(frozen=True)
class Coefficients:
    """Fitted times and shapes of one kernel, direction and head size; none is negative."""

    launch_us: float
    """Time of a call with next to nothing to do."""
    kv_tile_us: float
    """Time in which one SM takes a query tile over one key tile."""
    query_tile_us: float
    """Time that one SM spends on a tile besides: prologue, epilogue, scheduling."""
    query_row_us: float
    """The same for what grows with the tile's filled rows; for a full tile."""
    tail: float
    """How much of the longest tile's time adds to the average SM's, 0 to 1."""
    critical_scale: float
    """The longest tile's time when it runs alone, in units of `kv_tile_us` a key tile."""
    split_us: float
    """Cost of splitting keys over idle SMs; without effect where the kernel does not split."""
    split_row_us: float
    """The same for a full tile of query rows: partial results are written and merged."""
    throttle: float
    """Share by which time beyond `throttle_after_us` is slower."""
    throttle_after_us: float
    """Busy time after which the clock drops."""
    pack_penalty: float
    """Share by which tiles of a kernel that packs are slower unless they hold 4, 8 or 16 heads."""
    l2_mb: float
    """Megabytes of Q, K, V and O that stay in the L2 cache from one run to the next."""
    row_spill_us_per_mb: float
    """Time of a megabyte of Q and O that does not stay there, as far as it is not hidden."""
    cache_spill_us_per_mb: float
    """Time of a megabyte of K and V that the engine's KV-cache write moves beyond it."""
    cache_write_us: float
    """The KV-cache write itself: per 1,000 tokens of 512 or more elements each."""
    empty_tile_us: float = 0.0
    """Time that one SM loses to a block beyond its segment's end; 0 where none is started."""


COEFFICIENTS = tuple(field.name for field in fields(Coefficients))
# Files without these have them as 0, and as 0 they are not written.
_OPTIONAL = ("empty_tile_us",)


@dataclass(frozen=True)
class AttentionFit:
    """One direction and head size of a kernel.

    Attributes:
        direction: "forward" or "backward".
        head_dim: head size in elements.
        tile_q: rows of a query tile.
        tile_k: keys of a key tile.
        coefficients: as fitted.
        source: MEASURED where fitted to measured calls, else where they come from.
        sampled: the calls it was fitted to; None where there were none.
        cpu_rows: of a kernel for CPUs, the rows of queries that a block's and a segment's own cost
            a key is worth; None takes usual ones, and without effect on GPUs.
    """

    direction: Direction
    head_dim: int
    tile_q: int
    tile_k: int
    coefficients: Coefficients
    source: Source
    sampled: Sampled | None
    cpu_rows: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this fit."""
        document: dict[str, Any] = {
            "direction": self.direction,
            "head_dim": self.head_dim,
            "tile_q": self.tile_q,
            "tile_k": self.tile_k,
            "source": self.source.label,
            "coefficients": {
                name: value
                for name, value in asdict(self.coefficients).items()
                if value or name not in _OPTIONAL
            },
            "sampled": None if self.sampled is None else self.sampled.to_json(),
        }
        if self.cpu_rows is not None:
            document["cpu_rows"] = list(self.cpu_rows)
        return document

    @classmethod
    def from_json(cls, document: Fields) -> AttentionFit:
        """Return the fit in `document`; raises ProfileError naming the bad field."""
        known = ["direction", "head_dim", "tile_q", "tile_k", "source", "coefficients", "sampled"]
        document.only([*known, "cpu_rows"])
        numbers = document.part("coefficients")
        numbers.only(COEFFICIENTS)
        sampled = document.raw("sampled")
        return cls(
            direction="backward"
            if document.word("direction", DIRECTIONS) == "backward"
            else "forward",
            head_dim=document.whole("head_dim", least=1, most=MAX_HEAD_DIM),
            tile_q=document.whole("tile_q", least=1, most=4096),
            tile_k=document.whole("tile_k", least=1, most=4096),
            coefficients=Coefficients(
                **{
                    name: numbers.number(name, most=1e9)
                    for name in COEFFICIENTS
                    if name in numbers.document or name not in _OPTIONAL
                }
            ),
            source=document.source(),
            sampled=None if sampled is None else Sampled.from_json(document.part("sampled")),
            cpu_rows=_read_cpu_rows(document),
        )


def _read_cpu_rows(document: Fields) -> tuple[int, int] | None:
    if "cpu_rows" not in document.document:
        return None
    rows = document.numbers("cpu_rows")
    if len(rows) != 2 or any(row != int(row) or row > _MOST_CPU_ROWS for row in rows):
        raise document.fail(
            "cpu_rows", f"is {list(rows)}, not two whole numbers up to {_MOST_CPU_ROWS}"
        )
    return int(rows[0]), int(rows[1])


@dataclass(frozen=True)
class AttentionModel:
    """Times of one attention kernel on one GPU.

    Attributes:
        kernel: its name, e.g. "flash-attn-3".
        sms: streaming multiprocessors of the GPU.
        packs_gqa: whether the query heads of a KV head share a query tile in the forward.
        splits_keys: whether few long query tiles are split along the keys.
        fits: at most one for a direction and head size; at least one forward.
    """

    kernel: str
    sms: int
    packs_gqa: bool
    splits_keys: bool
    fits: tuple[AttentionFit, ...]

    def __post_init__(self) -> None:
        if not any(fit.direction == "forward" for fit in self.fits):
            raise ProfileError(f"attention model {self.kernel} has no forward fit")
        keys = [(fit.direction, fit.head_dim) for fit in self.fits]
        for key in keys:
            if keys.count(key) > 1:
                raise ProfileError(
                    f"attention model {self.kernel} has two fits for {key[0]}, head size {key[1]}"
                )

    @cached_property
    def head_dims(self) -> tuple[int, ...]:
        """Head sizes with a forward fit, rising."""
        return tuple(sorted(f.head_dim for f in self.fits if f.direction == "forward"))

    def fit(self, head_dim: int, direction: str) -> tuple[AttentionFit, Source]:
        """Return the fit for a head size, and where it comes from.

        A head size without a fit takes the nearest one's, scaled, and is EXTRAPOLATED at best.

        Raises:
            ProfileError: unknown direction or impossible head size.
        """
        if not 1 <= head_dim <= MAX_HEAD_DIM:
            raise ProfileError(f"head size {head_dim} is not in 1..{MAX_HEAD_DIM}")
        known = [fit for fit in self.fits if fit.direction == direction]
        if not known:
            names = sorted({fit.direction for fit in self.fits})
            raise ProfileError(
                f"attention direction {direction!r} is not known for {self.kernel};"
                f" known: {', '.join(names)}"
            )
        nearest = min(known, key=lambda fit: (abs(fit.head_dim - head_dim), fit.head_dim))
        if nearest.head_dim == head_dim:
            return nearest, nearest.source
        ratio = head_dim / nearest.head_dim
        old = nearest.coefficients
        scaled = replace(
            old,
            kv_tile_us=old.kv_tile_us * (1 + _HEAD_DIM_SHARE * (ratio - 1)),
            query_row_us=old.query_row_us * ratio,
        )
        fit = replace(nearest, head_dim=head_dim, coefficients=scaled, sampled=None)
        return fit, max(nearest.source, Source.EXTRAPOLATED)

    def parameters(
        self,
        q_heads: int,
        kv_heads: int,
        head_dim: int,
        direction: str,
        *,
        causal: bool = True,
        cache_write: bool = False,
    ) -> NDArray[np.float64]:
        """Return the parameters that `attention_kernel`'s functions take.

        Args:
            q_heads: query heads on the rank.
            kv_heads: key/value heads on the rank; divides `q_heads`.
            head_dim: head size.
            direction: "forward" or "backward".
            causal: False for full rectangles, as steps of a ring use them.
            cache_write: True for forward calls as the shipped tables hold them, on the KV cache of
                a serving engine: K and V are written to it first, and keys are split where query
                tiles are few. Training does neither.

        Raises:
            ProfileError: heads that do not divide, a head size or direction out of range.
        """
        check_heads(q_heads, kv_heads)
        fit, _ = self.fit(head_dim, direction)
        c = fit.coefficients
        forward = fit.direction == "forward"
        packed = q_heads // kv_heads if self.packs_gqa and forward else 1
        result = np.zeros(kernel.PARAMETERS, np.float64)
        result[kernel.HEADS] = q_heads // packed
        result[kernel.PACKED] = packed
        result[kernel.TILE_Q] = fit.tile_q
        result[kernel.TILE_K] = fit.tile_k
        result[kernel.SMS] = self.sms
        result[kernel.CAUSAL] = causal
        result[kernel.Q_HEADS] = q_heads
        result[kernel.KEY_OUTER] = not forward
        result[kernel.SPLITS_KEYS] = self.splits_keys and forward and cache_write
        result[kernel.ROW_MB] = 2 * q_heads * head_dim * ELEMENT_BYTES / 1e6
        written = 2 if cache_write and forward else 0
        result[kernel.CACHE_MB] = (2 + written) * kv_heads * head_dim * ELEMENT_BYTES / 1e6
        result[kernel.LAUNCH_US] = c.launch_us
        result[kernel.KV_TILE_US] = c.kv_tile_us
        result[kernel.QUERY_TILE_US] = c.query_tile_us
        result[kernel.QUERY_ROW_US] = c.query_row_us
        result[kernel.TAIL] = c.tail
        result[kernel.CRITICAL_SCALE] = c.critical_scale
        result[kernel.SPLIT_US] = c.split_us
        result[kernel.SPLIT_ROW_US] = c.split_row_us
        result[kernel.THROTTLE] = c.throttle
        result[kernel.THROTTLE_AFTER_US] = c.throttle_after_us
        result[kernel.L2_MB] = c.l2_mb
        result[kernel.ROW_SPILL_US] = c.row_spill_us_per_mb
        result[kernel.EMPTY_TILE_US] = c.empty_tile_us
        if cache_write and forward:
            share = cache_write_share(kv_heads, head_dim)
            result[kernel.CACHE_WRITE_US] = c.cache_write_us * share / 1e3
            result[kernel.CACHE_SPILL_US] = c.cache_spill_us_per_mb
        if self.kernel == CPU_KERNEL:
            result[kernel.BLOCKED] = 1.0
            rows = fit.cpu_rows or _CPU_ROWS[fit.direction]
            result[kernel.BLOCK_ROWS], result[kernel.SEGMENT_ROWS] = rows
            result[kernel.OPERATOR_HEADS] = _CPU_OPERATOR_HEADS
        if self.packs_gqa and forward and packed not in FAST_PACKS:
            for i in (kernel.KV_TILE_US, kernel.QUERY_ROW_US):
                result[i] *= 1 + c.pack_penalty
        return result

    def source(
        self,
        q_lens: Sequence[int] | NDArray[np.int64],
        k_lens: Sequence[int] | NDArray[np.int64],
        q_heads: int,
        kv_heads: int,
        head_dim: int,
        direction: str,
        *,
        causal: bool = True,
    ) -> Source:
        """Return where the time of one call comes from.

        MEASURED: the very call was measured. INTERPOLATED: within the ranges of the measured calls
        in every respect. EXTRAPOLATED: outside in some respect (longer, more heads, a prefix or
        mixed lengths where none were measured, no mask). REPORTED: from publications.
        """
        fit, source = self.fit(head_dim, direction)
        if source > Source.EXTRAPOLATED:
            return source
        if fit.sampled is None or not causal:
            return Source.EXTRAPOLATED
        return max(source, fit.sampled.source(q_lens, k_lens, q_heads, kv_heads))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this model."""
        return {
            "kernel": self.kernel,
            "sms": self.sms,
            "packs_gqa": self.packs_gqa,
            "splits_keys": self.splits_keys,
            "fits": [fit.to_json() for fit in self.fits],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any] | Fields) -> AttentionModel:
        """Return the model in a JSON object; raises ProfileError naming the bad field."""
        part = document if isinstance(document, Fields) else Fields(document, "attention")
        part.only(["kernel", "sms", "packs_gqa", "splits_keys", "fits"])
        return cls(
            kernel=part.text("kernel"),
            sms=part.whole("sms", least=1, most=4096),
            packs_gqa=part.flag("packs_gqa"),
            splits_keys=part.flag("splits_keys"),
            fits=tuple(AttentionFit.from_json(fit) for fit in part.parts("fits")),
        )


def check_heads(q_heads: int, kv_heads: int) -> None:
    """Raise ProfileError unless `kv_heads` divides `q_heads` and both are in range."""
    if not 1 <= q_heads <= MAX_HEADS or not 1 <= kv_heads <= MAX_HEADS:
        raise ProfileError(f"{q_heads}:{kv_heads} heads are not in 1..{MAX_HEADS}")
    if q_heads % kv_heads:
        raise ProfileError(
            f"{q_heads} query heads are not a multiple of {kv_heads} key/value heads"
        )


def cache_write_share(kv_heads: int, head_dim: int) -> float:
    """Return how a token's KV-cache write compares to that of 512 or more elements.

    The engine runs a block of min(kv_heads * head_dim, 512) threads a token, so a GPU holds fewer
    tokens at a time the more heads there are, up to 512 elements; the exponent is measured.
    """
    return float(min(1.0, kv_heads * head_dim / 512) ** 1.2)
