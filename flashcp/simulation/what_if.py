"""What-if changes of a setting: each idea and each figure can be switched by itself.

Links: T(S) of a collective is its latency plus its transfer; each is scaled apart. Kernels: the
times of tiles and rows are divided by the speed, launches stay. Exchange and overlap replace what a
plan does, except in rings, which have one way to work; `auto` chooses again among what is left
(`flashcp.simulation.switched`). What is changed here is hypothetical, whatever the profile's
sources say of the figure that it started from.
"""

from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from costmodel.attention import AttentionFit
from costmodel.collectives import CollectiveCurve
from costmodel.profile import Profile
from flashcp.errors import PlanError
from flashcp.prediction import Copies

ExchangeSwitch = Literal["own", "all-gather", "non-last", "needed"]
OverlapSwitch = Literal["own", "on", "off"]
EXCHANGE_SWITCHES: tuple[ExchangeSwitch, ...] = get_args(ExchangeSwitch)
OVERLAP_SWITCHES: tuple[OverlapSwitch, ...] = get_args(OverlapSwitch)
_LEAST, _MOST = 1e-3, 1e3


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """Changes to a setting; the defaults change nothing.

    Attributes:
        link_bandwidth: factor on the bandwidth of links, within nodes and between them.
        link_latency: factor on their latency.
        kernel_speed: factor on the rate of attention kernels.
        copies: "published" or "in-place", as in `Setting`.
        exchange: "own" leaves each strategy its exchange; the others replace it.
        overlap: "own" leaves each plan its choice; "on" and "off" replace it.
    """

    link_bandwidth: float = 1.0
    link_latency: float = 1.0
    kernel_speed: float = 1.0
    copies: Copies = "published"
    exchange: ExchangeSwitch = "own"
    overlap: OverlapSwitch = "own"

    def __post_init__(self) -> None:
        for name in ("link_bandwidth", "link_latency", "kernel_speed"):
            if not _LEAST <= getattr(self, name) <= _MOST:
                raise PlanError(
                    f"{name} {getattr(self, name)} is not a factor in {_LEAST}..{_MOST:.0f}"
                )

    @property
    def switches_plans(self) -> bool:
        """Whether plans are run in another way than their strategy's own."""
        return (self.exchange, self.overlap) != ("own", "own")

    def profile(self, profile: Profile) -> Profile:
        """Return the profile with these links and kernels."""
        if self.link_bandwidth != 1 or self.link_latency != 1:
            network = profile.network
            profile = replace(
                profile,
                collectives=replace(
                    profile.collectives,
                    curves=tuple(self._curve(curve) for curve in profile.collectives.curves),
                ),
                network=replace(
                    network,
                    nic_gbps=replace(
                        network.nic_gbps, value=network.nic_gbps.value * self.link_bandwidth
                    ),
                    step_us=replace(
                        network.step_us, value=network.step_us.value * self.link_latency
                    ),
                ),
            )
        if self.kernel_speed != 1:
            fits = tuple(self._fit(fit) for fit in profile.attention.fits)
            profile = replace(profile, attention=replace(profile.attention, fits=fits))
        return profile

    def changes(self) -> dict[str, float | str]:
        """Return what differs from the defaults, by name."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }

    def _curve(self, curve: CollectiveCurve) -> CollectiveCurve:
        latency = curve.latency_us
        return replace(
            curve,
            times_us=tuple(
                latency * self.link_latency + (us - latency) / self.link_bandwidth
                for us in curve.times_us
            ),
            alpha_us=curve.alpha_us * self.link_latency,
            beta_us_per_byte=curve.beta_us_per_byte / self.link_bandwidth,
            gamma_us_per_root_byte=curve.gamma_us_per_root_byte / self.link_bandwidth,
        )

    def _fit(self, fit: AttentionFit) -> AttentionFit:
        old = fit.coefficients
        return replace(
            fit,
            coefficients=replace(
                old,
                kv_tile_us=old.kv_tile_us / self.kernel_speed,
                query_tile_us=old.query_tile_us / self.kernel_speed,
                query_row_us=old.query_row_us / self.kernel_speed,
                row_spill_us_per_mb=old.row_spill_us_per_mb / self.kernel_speed,
                empty_tile_us=old.empty_tile_us / self.kernel_speed,
            ),
        )
