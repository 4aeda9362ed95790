"""The options that say on what hardware and for which model, for every command that predicts."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from flashcp_cli.options import CommaList, Name, Size

if TYPE_CHECKING:
    from costmodel.model_shape import ModelShape
    from costmodel.profile import Profile

COPIES = ("published", "in-place")
_MODEL = "Model shape: a preset or a Hugging Face config.json."
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


def setting_options(*, lists: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds model, heads, hardware, ranks per node and copies.

    Args:
        lists: take several values between commas, as tuples; None where nothing was given.
    """

    def several(of: click.ParamType[Any]) -> click.ParamType[Any]:
        return CommaList(of) if lists else of

    more = ",..." if lists else ""
    copies = Names(COPIES) if lists else Name(COPIES)

    def add(function: Callable[..., None]) -> Callable[..., None]:
        options = [
            click.option("--model", type=several(click.STRING), metavar=f"NAME|CONFIG.JSON{more}",
                         default="llama3-8b", show_default=True, help=_MODEL),
            *(
                click.option(f"--{name.replace('_', '-')}", type=several(Size(most=most)),
                             help=f"{what}, instead of the model's.")
                for name, (what, most) in _HEADS.items()
            ),
            click.option("--hardware", type=several(click.STRING),
                         metavar=f"NAME|PROFILE.JSON{more}", default="h100-sxm", show_default=True,
                         help="Hardware profile (see flashcp hardware list)."),
            click.option("--ranks-per-node", type=Size(most=1024),
                         help="Ranks that share a node's links."),
            click.option("--copies", type=copies, default="published",
                         show_default=True, help="Count copies as each strategy's authors run it, "
                         "or only what a layout must move."),
        ]  # fmt: skip
        for option in reversed(options):
            function = option(function)
        return function

    return add


def load_model_with(
    name: str, q_heads: int | None, kv_heads: int | None, head_dim: int | None
) -> "ModelShape":
    """Load a model and give it other heads where asked.

    Raises:
        costmodel.ProfileError: no such model, or heads that do not divide.
    """
    from dataclasses import replace

    from costmodel.model_shape import load_model

    model = load_model(name)
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
