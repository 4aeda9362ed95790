"""`flashcp hardware`: what the cost model knows of a GPU, and how far its predictions are off."""

from typing import TYPE_CHECKING, Any

import click

from flashcp_cli.options import echo_json, json_option

if TYPE_CHECKING:
    from costmodel.held_out import HeldOutError
    from costmodel.profile import Profile


@click.group()
def hardware() -> None:
    r"""Look at hardware profiles and their errors.

    \b
    flashcp hardware list                 the profiles that come with flashcp
    flashcp hardware show h100-sxm        its parameters, each with where it came from
    flashcp hardware validate h100-sxm    errors on measured points left out of the fit
    """


@hardware.command("list")
@json_option
def list_profiles(as_json: bool) -> None:
    """List the bundled profiles and where they came from."""
    from costmodel.profile_file import bundled_profiles, load_profile

    profiles = [load_profile(name) for name in bundled_profiles()]
    if as_json:
        echo_json({"profiles": [{"name": p.name, **p.provenance.to_json()} for p in profiles]})
    else:
        from flashcp_cli.hardware_view import print_list

        print_list(profiles)


@hardware.command()
@click.argument("profile", metavar="NAME_OR_PATH")
@json_option
def show(profile: str, as_json: bool) -> None:
    """Show a profile: parameters, attention rate over length, bandwidth over message size.

    NAME_OR_PATH is a bundled profile or a profile file. Measured points stand beside the model's
    where the profile was fitted to the bundled tables.
    """
    from costmodel.profile_file import load_profile
    from flashcp_cli.hardware_curves import attention_curve, collective_curves

    loaded = load_profile(profile)
    attention, collectives = attention_curve(loaded), collective_curves(loaded)
    if as_json:
        echo_json(
            {
                **_summary(loaded),
                "attention_curve": [point.to_json() for point in attention],
                "collective_curves": [point.to_json() for point in collectives],
            }
        )
    else:
        from flashcp_cli.hardware_view import print_profile

        print_profile(loaded, attention, collectives)


@hardware.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@json_option
def validate(names: tuple[str, ...], as_json: bool) -> None:
    """Measure errors on points left out of the fit, for the bundled profiles (or NAME alone).

    Everything is fitted anew without the points that it then predicts: inside the sampled range
    and outside. Folds are fixed, so the figures are the same every time.
    """
    from costmodel.profile_file import bundled_profiles
    from costmodel.validate import require_table
    from costmodel.validate import validate as measure

    chosen = tuple(names) or tuple(bundled_profiles())
    for name in chosen:
        require_table(name)
    errors = {name: measure(name) for name in chosen}
    if as_json:
        echo_json({"errors": [_error(name, e) for name, es in errors.items() for e in es]})
    else:
        from flashcp_cli.hardware_view import print_errors

        print_errors(errors)


def _summary(profile: "Profile") -> dict[str, Any]:
    """Return the profile without its thousands of sampled calls, which its file holds."""
    document = profile.to_json()
    for fit in document["attention"]["fits"]:
        if fit["sampled"] is not None:
            del fit["sampled"]["equal"]
    return document


def _error(name: str, error: "HeldOutError") -> dict[str, Any]:
    return {"profile": name, **error.to_json()}
