"""What a calibration measured: points, each with the spread of its repeats, and their JSON.

A profile that was calibrated carries its points, so that its figures can be drawn beside what was
measured and its held-out errors found again without the hardware.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from costmodel.attention import DIRECTIONS, MAX_HEAD_DIM, MAX_HEADS
from costmodel.attention_calls import MeasuredCall
from costmodel.collectives import COLLECTIVES
from costmodel.errors import ProfileError

if TYPE_CHECKING:
    from costmodel.checks import Fields

PARTS = ("even", "uneven", "empty")
LAYOUTS = ("contiguous", "gathered", "per shard")
NOISY_SPREAD = 0.10
"""Relative spread of repeats above which a point counts as noisy."""


@dataclass(frozen=True, kw_only=True)
class AttentionPoint:
    """One attention kernel call.

    Attributes:
        q_lens: query tokens of each segment.
        k_lens: key tokens of each segment.
        q_heads: query heads.
        kv_heads: key/value heads.
        head_dim: head size.
        direction: "forward" or "backward".
        us: microseconds.
        spread: of the repeats, relative (distance of the quartiles over the median).
    """

    kind: ClassVar[str] = "attention"

    q_lens: tuple[int, ...]
    k_lens: tuple[int, ...]
    q_heads: int
    kv_heads: int
    head_dim: int
    direction: str
    us: float
    spread: float

    def call(self) -> MeasuredCall:
        """Return the call as a fit takes it; a training call writes no KV cache."""
        return MeasuredCall(
            self.q_lens,
            self.k_lens,
            self.q_heads,
            self.kv_heads,
            self.head_dim,
            self.direction,
            self.us,
        )

    @property
    def shape(self) -> str:
        """What kind of call it is: "equal lengths", "mixed lengths" or "prefixes"."""
        if self.q_lens != self.k_lens:
            return "prefixes"
        return "mixed lengths" if len(set(self.q_lens)) > 1 else "equal lengths"

    @classmethod
    def from_json(cls, part: Fields) -> AttentionPoint:
        """Read the point; raises ProfileError naming the field and value."""
        point = cls(
            q_lens=tuple(int(x) for x in part.numbers("q_lens", least=1)),
            k_lens=tuple(int(x) for x in part.numbers("k_lens", least=1)),
            q_heads=part.whole("q_heads", least=1, most=MAX_HEADS),
            kv_heads=part.whole("kv_heads", least=1, most=MAX_HEADS),
            head_dim=part.whole("head_dim", least=1, most=MAX_HEAD_DIM),
            direction=part.word("direction", DIRECTIONS),
            **_time(part),
        )
        try:
            point.call()
        except ProfileError as error:
            raise part.fail("q_lens", f"is no call: {error}") from None
        return point


@dataclass(frozen=True, kw_only=True)
class TransferPoint:
    """One exchange over a group of ranks.

    Attributes:
        collective: as `Profile.collective_us` names it.
        parts: "even"; "uneven": an all-to-all whose ranks send different amounts, some nothing;
            "empty": one in which nobody sends anything.
        ranks: size of the group.
        ranks_per_node: how many of them share a node.
        total_bytes: S as nccl-tests counts it; of an uneven all-to-all what its busiest rank sends
            to, or receives from, all the others.
        us: microseconds, of the slowest rank.
        spread: of the repeats, relative.
    """

    kind: ClassVar[str] = "transfer"

    collective: str
    parts: str
    ranks: int
    ranks_per_node: int
    total_bytes: int
    us: float
    spread: float

    @classmethod
    def from_json(cls, part: Fields) -> TransferPoint:
        """Read the point; raises ProfileError naming the field and value."""
        return cls(
            collective=part.word("collective", COLLECTIVES),
            parts=part.word("parts", PARTS),
            ranks=part.whole("ranks", least=2, most=2**20),
            ranks_per_node=part.whole("ranks_per_node", least=1, most=2**20),
            total_bytes=part.whole("total_bytes"),
            **_time(part),
        )


@dataclass(frozen=True, kw_only=True)
class CopyPoint:
    """One copy of KV within a device.

    Attributes:
        layout: "contiguous"; "gathered": row by row through an index; "per shard": slice by slice.
        moved_bytes: bytes copied; each is read once and written once.
        pieces: slices that they are copied in.
        us: microseconds.
        spread: of the repeats, relative.
    """

    kind: ClassVar[str] = "copy"

    layout: str
    moved_bytes: int
    pieces: int
    us: float
    spread: float

    @classmethod
    def from_json(cls, part: Fields) -> CopyPoint:
        """Read the point; raises ProfileError naming the field and value."""
        return cls(
            layout=part.word("layout", LAYOUTS),
            moved_bytes=part.whole("moved_bytes", least=1),
            pieces=part.whole("pieces", least=1),
            **_time(part),
        )


@dataclass(frozen=True, kw_only=True)
class _HostPoint:
    """What the host takes to queue one thing more."""

    us: float
    spread: float

    @classmethod
    def from_json(cls, part: Fields) -> Self:
        """Read the point; raises ProfileError naming the field and value."""
        return cls(**_time(part))


class LaunchPoint(_HostPoint):
    """Launching one further kernel, from the host's point of view."""

    kind: ClassVar[str] = "launch"


class QueuePoint(_HostPoint):
    """Queueing the copy of one slice into another from Python, from the host's point of view."""

    kind: ClassVar[str] = "queue"


class MessagePoint(_HostPoint):
    """Posting one message of an exchange, from the host's point of view."""

    kind: ClassVar[str] = "message"


@dataclass(frozen=True, kw_only=True)
class MatmulPoint:
    """A dense matrix multiplication, in the precision of attention: what linear layers are made of.

    Attributes:
        flops: floating-point operations.
        us: microseconds.
        spread: of the repeats, relative.
    """

    kind: ClassVar[str] = "matmul"

    flops: float
    us: float
    spread: float

    @classmethod
    def from_json(cls, part: Fields) -> MatmulPoint:
        """Read the point; raises ProfileError naming the field and value."""
        return cls(flops=part.number("flops", least=1.0), **_time(part))


@dataclass(frozen=True, kw_only=True)
class OverlapPoint:
    """Attention and an exchange, each alone and beside the other.

    Attributes:
        collective: which exchange.
        ranks: size of the group.
        attention_us: attention alone.
        exchange_us: the exchange alone.
        attention_beside_us: attention while the exchange runs.
        exchange_beside_us: the exchange while attention runs.
        spread: of the repeats, relative; the largest of the four.
    """

    kind: ClassVar[str] = "overlap"

    collective: str
    ranks: int
    attention_us: float
    exchange_us: float
    attention_beside_us: float
    exchange_beside_us: float
    spread: float

    @property
    def attention_factor(self) -> float:
        """How many times as long attention takes, for as long as the exchange runs; at least 1.

        Attention that outlasts the exchange is slowed only until that ends.
        """
        lost = self.attention_beside_us - self.attention_us
        beside = min(self.exchange_beside_us, self.attention_beside_us)
        return max(1.0, beside / max(beside - lost, beside / 100))

    @property
    def exchange_factor(self) -> float:
        """How many times as long the exchange takes while attention runs; at least 1."""
        lost = self.exchange_beside_us - self.exchange_us
        beside = min(self.exchange_beside_us, self.attention_beside_us)
        return max(1.0, beside / max(beside - lost, beside / 100))

    @classmethod
    def from_json(cls, part: Fields) -> OverlapPoint:
        """Read the point; raises ProfileError naming the field and value."""
        times = ("attention_us", "exchange_us", "attention_beside_us", "exchange_beside_us")
        return cls(
            collective=part.word("collective", COLLECTIVES),
            ranks=part.whole("ranks", least=2, most=2**20),
            spread=part.number("spread"),
            **{name: part.number(name, least=1e-6) for name in times},
        )


Point: TypeAlias = (
    AttentionPoint
    | TransferPoint
    | CopyPoint
    | LaunchPoint
    | QueuePoint
    | MessagePoint
    | MatmulPoint
    | OverlapPoint
)
_KINDS: dict[str, type[Point]] = {
    cls.kind: cls
    for cls in (
        AttentionPoint,
        TransferPoint,
        CopyPoint,
        LaunchPoint,
        QueuePoint,
        MessagePoint,
        MatmulPoint,
        OverlapPoint,
    )
}


def point_to_json(point: Point) -> dict[str, Any]:
    """Return the point as a JSON object, its kind with it."""
    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(point).items()
    }
    return {"kind": point.kind, **values}


def point_from_json(part: Fields) -> Point:
    """Read a point of any kind; raises ProfileError naming the field and value."""
    cls = _KINDS[part.word("kind", _KINDS)]
    part.only(("kind", *(field.name for field in fields(cls))))
    return cls.from_json(part)


def identity(point: Point) -> dict[str, Any]:
    """Return what tells a point from others: everything but what was measured."""
    measured = ("us", "spread")
    return {
        name: value
        for name, value in point_to_json(point).items()
        if name not in measured and not name.endswith("_us")
    }


def _time(part: Fields) -> dict[str, Any]:
    return {"us": part.number("us", least=1e-6), "spread": part.number("spread")}
