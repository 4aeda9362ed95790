"""The options that say on what hardware, for which model and how hard to search, for all commands.

`flashcp plan` has defaults, `flashcp simulate` takes lists of everything, and `flashcp run` leaves
to a plan file what is not given.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from flashcp_cli.options import CommaList, Name, Number, Size

if TYPE_CHECKING:
    from costmodel.model_shape import ModelShape
    from costmodel.profile import Profile

COPIES = ("published", "in-place")
DEFAULT_MODEL = "llama3-8b"
DEFAULT_HARDWARE = "h100-sxm"
_MOST_EFFORT = 1_000_000  # flashcp.auto's, which takes too long to import for -h
BALANCES = ("work", "time")  # flashcp.search.weights', likewise
_MODEL = "Model shape: a preset or a Hugging Face config.json"
_HARDWARE = "Hardware profile, of flashcp hardware list or a file"
_HEADS = {
    "q_heads": ("Query heads a rank", 4096),
    "kv_heads": ("KV heads a rank", 4096),
    "head_dim": ("Head size", 1024),
}


class Names(CommaList):
    """Some of a few names between commas; the help shows them all."""

    def __init__(self, names: Iterable[str]) -> None:
        self._one = Name(names)
        super().__init__(self._one)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Show every name in the help."""
        return f"{self._one.get_metavar(param, ctx)},..."


def setting_options(
    *, lists: bool = False, of_plan: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds model, heads, hardware, nodes, copies, effort, balance.

    Args:
        lists: take several values between commas, as tuples; None where nothing was given.
        of_plan: model and hardware are None unless given, as a plan file may say them; without
            copies, which a command that makes them has its own word for.
    """

    def several(of: click.ParamType[Any]) -> click.ParamType[Any]:
        return CommaList(of) if lists else of

    def source(name: str, what: str, files: str, default: str) -> Callable[..., Any]:
        return click.option(
            name,
            type=several(click.STRING),
            metavar=f"NAME|{files}{',...' if lists else ''}",
            default=None if of_plan else default,
            show_default=True,
            help=f"{what} (the plan's, or {default}, otherwise)." if of_plan else f"{what}.",
        )

    copies = click.option(
        "--copies",
        type=Names(COPIES) if lists else Name(COPIES),
        default="published",
        show_default=True,
        help="Count copies as each strategy's authors run it, or only what a layout must move.",
    )

    def add(function: Callable[..., None]) -> Callable[..., None]:
        options = [
            source("--model", _MODEL, "CONFIG.JSON", DEFAULT_MODEL),
            *(
                click.option(f"--{name.replace('_', '-')}", type=several(Size(most=most)),
                             help=f"{what}, instead of the model's.")
                for name, (what, most) in _HEADS.items()
            ),
            source("--hardware", _HARDWARE, "PROFILE.JSON", DEFAULT_HARDWARE),
            click.option("--ranks-per-node", type=Size(most=1024),
                         help="Ranks that share a node's links."),
            *(() if of_plan else (copies,)),
            click.option("--plan-effort", type=Number(least=0, most=_MOST_EFFORT), default=1.0,
                         show_default=True, metavar="FACTOR", help="Search steps of auto, in units "
                         "of its default; fewer are faster, 0 only places greedily."),
            click.option("--balance", type=Name(BALANCES),
                         show_default="work on one node, time on several",
                         help="What auto makes even between ranks: attention work, or predicted "
                         "time, for plans that are predicted faster."),
        ]  # fmt: skip
        for option in reversed(options):
            function = option(function)
        return function

    return add


def search_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return how hard `auto` is to search and what to make even, as `flashcp.plan` takes them."""
    return {"effort": options["plan_effort"], "balance": options["balance"]}


def load_model_with(
    name: str, q_heads: int | None, kv_heads: int | None, head_dim: int | None
) -> "ModelShape":
    """Load a model and give it other heads where asked.

    Raises:
        costmodel.ProfileError: no such model, or heads that do not divide.
    """
    from costmodel.model_shape import load_model

    return with_heads(load_model(name), q_heads, kv_heads, head_dim)


def with_heads(
    model: "ModelShape", q_heads: int | None, kv_heads: int | None, head_dim: int | None
) -> "ModelShape":
    """Give a model other heads where asked.

    Raises:
        costmodel.ProfileError: heads that do not divide.
    """
    from dataclasses import replace

    given = {"q_heads": q_heads, "kv_heads": kv_heads, "head_dim": head_dim}
    heads: dict[str, Any] = {key: value for key, value in given.items() if value}
    if not heads:
        return model
    # Other heads make another model: what is known of its linear layers no longer holds.
    name = f"{model.name} with " + ", ".join(f"{key} {value}" for key, value in heads.items())
    return replace(model, name=name, hidden_size=0, ffn_size=0, **heads)


def load_models_with(options: dict[str, Any]) -> "list[ModelShape]":
    """Load every combination of models and heads; options are tuples or None."""
    from itertools import product

    heads = [options[key] or (None,) for key in _HEADS]
    return [load_model_with(*each) for each in product(options["model"], *heads)]


def load_profiles(names: tuple[str, ...]) -> "list[Profile]":
    """Load hardware profiles by name or path."""
    from costmodel.profile_file import load_profile

    return [load_profile(name) for name in names]
