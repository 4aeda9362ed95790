"""The product of all axes: which settings a simulation compares, over the same packs.

Packs depend on trace, window and packer alone, so every CP degree, strategy, model, hardware and
what-if sees the same ones: differences between rows are differences between settings, not draws.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

from costmodel.model_shape import ModelShape
from costmodel.profile import Profile
from flashcp.auto import MOST_EFFORT, check_balance
from flashcp.errors import PlanError
from flashcp.exchange import Exchange
from flashcp.prediction import Setting
from flashcp.simulation.what_if import WhatIf
from flashcp.strategies import NAMES, STRATEGIES, check_cp
from traces.packing import Packing, pack

if TYPE_CHECKING:
    from flashcp.search.weights import Balance
    from traces.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One combination of all axes but the strategy; the columns of the results that name it."""

    trace: str
    pack_by: str
    context_tokens: int
    hardware: str
    model: str
    q_heads: int
    kv_heads: int
    tensor_parallel: int
    cp: int
    ranks_per_node: int
    link_bandwidth: float
    link_latency: float
    kernel_speed: float
    copies: str
    exchange: str
    overlap: str

    @property
    def packing(self) -> tuple[str, str, int]:
        """What the packs depend on."""
        return self.trace, self.pack_by, self.context_tokens


AXES = tuple(Configuration.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The values of every axis, in the order in which they are tried.

    Attributes:
        traces: document lengths; names must differ.
        context_tokens: windows.
        pack_by: packers.
        cp: CP degrees.
        strategies: names.
        profiles: hardware; names must differ.
        models: shapes, as a whole model has them; names must differ.
        tensor_parallel: degrees by which heads and linear layers are divided.
        what_ifs: changes to each setting.
        ranks_per_node: ranks of one CP group that share a node; None lets the profile decide from
            its GPUs a node and the tensor-parallel degree.
        packs: packs of each trace and window; None for all.
        seed: order of the documents; None keeps the trace's.
        replicas: data-parallel replicas; also the batch that the packer `balanced` evens out.
        plan_effort: search steps of `auto`, in units of its default.
        balance: what `auto` evens out between ranks: "work", "time" or None; see `flashcp.plan`.
    """

    traces: Sequence["Trace"]
    context_tokens: Sequence[int]
    cp: Sequence[int]
    strategies: Sequence[str]
    profiles: Sequence[Profile]
    models: Sequence[ModelShape]
    pack_by: Sequence[str] = ("concat",)
    tensor_parallel: Sequence[int] = (1,)
    what_ifs: Sequence[WhatIf] = (WhatIf(),)
    ranks_per_node: int | None = None
    packs: int | None = None
    seed: int | None = 0
    replicas: int = 1
    plan_effort: float = 1.0
    balance: "Balance | None" = None

    def __post_init__(self) -> None:
        """Check every combination before any work is done.

        Raises:
            PlanError: an axis without values or with one twice; options that contradict.
            ProfileError: ranks per node that do not divide a CP degree.
        """
        for axis in ("traces", "context_tokens", "cp", "strategies", "profiles", "models",
                     "pack_by", "tensor_parallel", "what_ifs"):  # fmt: skip
            values = [getattr(v, "name", v) for v in getattr(self, axis)]
            if not values:
                raise PlanError(f"the sweep is empty: {axis} has no values")
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise PlanError(f"the sweep has {axis} {twice[0]} twice; give another name")
        for strategy in self.strategies:
            if strategy not in NAMES:
                raise PlanError(f"strategy {strategy!r} is unknown; there are: {', '.join(NAMES)}")
        for cp in self.cp:
            check_cp(cp)
        if self.replicas < 1:
            raise PlanError(f"replicas is {self.replicas}, not 1 or more")
        if self.packs is not None and self.packs < self.replicas:
            raise PlanError(
                f"{self.packs} packs are not enough for one step of {self.replicas} replicas; "
                "take more packs or fewer replicas"
            )
        if not 0 <= self.plan_effort <= MOST_EFFORT:
            raise PlanError(f"plan effort {self.plan_effort} is not in 0..{MOST_EFFORT:.0f}")
        check_balance(self.balance)
        self._check_switches()
        for model, degree in product(self.models, self.tensor_parallel):
            divided(model, degree)
        _ = self.configurations

    @cached_property
    def configurations(self) -> tuple[Configuration, ...]:
        """Every combination but the strategies."""
        return tuple(
            Configuration(
                trace=trace.name,
                pack_by=by,
                context_tokens=context,
                hardware=profile.name,
                model=model.name,
                q_heads=model.q_heads,
                kv_heads=model.kv_heads,
                tensor_parallel=degree,
                cp=cp,
                ranks_per_node=self._per_node(profile, cp, degree),
                **asdict(what_if),
            )
            for trace, by, context, profile, model, degree, cp, what_if in product(
                self.traces, self.pack_by, self.context_tokens, self.profiles, self.models,
                self.tensor_parallel, self.cp, self.what_ifs,
            )
        )  # fmt: skip

    def setting(self, configuration: Configuration) -> Setting:
        """Return the setting of one rank under `configuration`."""
        what_if = self.what_if(configuration)
        profile = next(p for p in self.profiles if p.name == configuration.hardware)
        model = self.model(configuration)
        return Setting(
            profile=what_if.profile(profile),
            model=divided(model, configuration.tensor_parallel),
            ranks_per_node=configuration.ranks_per_node,
            copies=what_if.copies,
        )

    def model(self, configuration: Configuration) -> ModelShape:
        """Return the whole model, before tensor parallelism."""
        return next(m for m in self.models if m.name == configuration.model)

    def what_if(self, configuration: Configuration) -> WhatIf:
        """Return the changes that `configuration` makes."""
        names = WhatIf.__dataclass_fields__
        return WhatIf(**{name: getattr(configuration, name) for name in names})

    def packing(self, configuration: Configuration) -> Packing:
        """Pack the documents; the same for every configuration with the same `packing`."""
        trace = next(t for t in self.traces if t.name == configuration.trace)
        return pack(
            trace,
            configuration.context_tokens,
            by=configuration.pack_by,
            packs=self.packs,
            seed=self.seed,
            packs_per_batch=max(self.replicas, 1) if self.replicas > 1 else 8,
        )

    def to_json(self) -> dict[str, Any]:
        """Return all that the results depend on."""
        return {
            "traces": {trace.name: trace.fingerprint for trace in self.traces},
            "context_tokens": list(self.context_tokens),
            "pack_by": list(self.pack_by),
            "cp": list(self.cp),
            "strategies": list(self.strategies),
            "hardware": {profile.name: _digest(profile.to_json()) for profile in self.profiles},
            "models": [model.to_json() for model in self.models],
            "tensor_parallel": list(self.tensor_parallel),
            "what_ifs": [asdict(what_if) for what_if in self.what_ifs],
            "ranks_per_node": self.ranks_per_node,
            "packs": self.packs,
            "seed": self.seed,
            "plan_effort": self.plan_effort,
            # Results from before there was a choice go on.
            **({} if self.balance is None else {"balance": self.balance}),
            # Only where the packer evens out the replicas of a step do packs depend on them.
            "replicas": self.replicas if "balanced" in self.pack_by else None,
        }

    def _per_node(self, profile: Profile, cp: int, degree: int) -> int:
        if self.ranks_per_node is not None or degree == 1:
            return profile.network.per_node(cp, self.ranks_per_node)
        # A tensor-parallel group lies within a node; what is left of it is the CP group's.
        room = max(profile.network.gpus_per_node // degree, 1)
        return replace(profile.network, gpus_per_node=room).per_node(cp, None)

    def _check_switches(self) -> None:
        rings = all(
            name in STRATEGIES and STRATEGIES[name].exchange is Exchange.RING
            for name in self.strategies
        )
        for what_if in self.what_ifs:
            if rings and what_if.switches_plans:
                raise PlanError(
                    f"exchange {what_if.exchange} and overlap {what_if.overlap} switch nothing in "
                    f"{', '.join(self.strategies)}: rings have one way to run; add a strategy"
                )


def divided(model: ModelShape, degree: int) -> ModelShape:
    """Return the heads that one of `degree` tensor-parallel ranks holds.

    Raises:
        PlanError: the degree does not divide the query heads, or KV heads unevenly.
    """
    if degree == 1:
        return model

    def divides(ranks: int) -> bool:
        # With more ranks than KV heads each head is held more than once.
        kv_heads = model.kv_heads
        return not (model.q_heads % ranks or (kv_heads % ranks and ranks % kv_heads))

    if not divides(degree):
        fit = ", ".join(str(ranks) for ranks in range(1, model.q_heads + 1) if divides(ranks))
        raise PlanError(
            f"tensor-parallel degree {degree} does not divide the {model.q_heads}:{model.kv_heads} "
            f"heads of {model.name}; take one of {fit}"
        )
    return replace(
        model, q_heads=model.q_heads // degree, kv_heads=max(model.kv_heads // degree, 1)
    )


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]
