"""Makes the plan of a pack by any strategy: the one entrance for commands and library."""

from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from flashcp.strategies import AUTO, shard

if TYPE_CHECKING:
    from flashcp.plans import Plan
    from flashcp.prediction import Setting
    from flashcp.search.weights import Balance


def plan(
    lengths: ArrayLike,
    cp: int,
    strategy: str = AUTO,
    setting: "Setting | None" = None,
    *,
    effort: float = 1.0,
    balance: "Balance | None" = None,
) -> "Plan":
    """Shard one pack over `cp` ranks.

    Args:
        lengths: tokens of each packed document, whole numbers [documents], each at least 1.
        cp: CP degree, 1 to 1,024.
        strategy: "ring", "zigzag", "per-seq", "per-doc", "flashcp" or "auto".
        setting: hardware and model shape, which `auto` minimises the predicted time for; see
            `default_setting`. The others do not need it.
        effort: search steps of `auto`, in units of its default, 0 to 1,000,000; 0 only places
            greedily. The others have none.
        balance: what `auto` evens out between ranks: attention "work", whatever the profile says,
            or predicted "time", of which a plan then takes less; None for work on one node and
            time where ranks span several.

    Returns:
        The plan; equal arguments give an equal plan on every machine and in every process.

    Raises:
        PlanError: a length, the CP degree, the strategy, the effort or the balance is wrong.
    """
    if strategy != AUTO:
        return shard(lengths, cp, strategy)
    # The search, and what it predicts with, are more than the fixed strategies need.
    from flashcp.auto import auto_plan  # noqa: PLC0415

    return auto_plan(lengths, cp, setting or default_setting(), effort=effort, balance=balance)


def default_setting() -> "Setting":
    """Return the setting that commands and functions assume: h100-sxm and llama3-8b."""
    from costmodel.model_shape import load_model  # noqa: PLC0415
    from costmodel.profile_file import load_profile  # noqa: PLC0415
    from flashcp.prediction import Setting  # noqa: PLC0415

    return Setting(profile=load_profile("h100-sxm"), model=load_model("llama3-8b"))
