"""`flashcp hardware`: what the cost model knows of a GPU, and how far its predictions are off."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flashcp_cli.options import DescribedGroup, PathNamed, echo_json, json_option

if TYPE_CHECKING:
    from costmodel.held_out import HeldOutError
    from costmodel.profile import Profile


@click.group(cls=DescribedGroup)
def hardware() -> None:
    """Look at hardware profiles and their errors.

    \b
    flashcp hardware list                 the profiles that come with flashcp
    flashcp hardware show h100-sxm        its parameters, each with where it came from
    flashcp hardware validate h100-sxm    errors on measured points left out of the fit
    flashcp hardware validate --against results.json    errors on runs of flashcp run --results
    """  # noqa: D301 - \b tells click to keep the lines


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
@click.option(
    "--html",
    type=PathNamed(dir_okay=False),
    help="Write the same as one page that works offline.",
)
@json_option
def show(profile: str, html: Path | None, as_json: bool) -> None:
    """Show a profile: parameters, attention rate over length, bandwidth over message size.

    NAME_OR_PATH is a bundled profile or a profile file. Measured points stand beside the model's:
    those of the bundled tables, or those that a calibration keeps in its profile.
    """
    from costmodel.profile_file import load_profile
    from flashcp_cli.hardware_curves import attention_curve, call_points, collective_curves

    if html is not None:
        from flashcp_cli.outputs import check_outputs
        from flashcp_cli.report.library import require_library

        require_library()
        check_outputs({"--html": html}, [profile])
    loaded = load_profile(profile)
    curves = attention_curve(loaded), call_points(loaded), collective_curves(loaded)
    if html is not None:
        from flashcp_cli.hardware_page import save_page

        save_page(loaded, *curves, html)
    if as_json:
        echo_json(
            {
                **_summary(loaded),
                "attention_curve": [point.to_json() for point in curves[0]],
                "attention_calls": [point.to_json() for point in curves[1]],
                "collective_curves": [point.to_json() for point in curves[2]],
            }
        )
    else:
        from flashcp_cli.hardware_view import print_profile

        print_profile(loaded, *curves)


@hardware.command()
@click.argument("names", metavar="[NAME_OR_PATH]...", nargs=-1)
@click.option(
    "--against",
    type=PathNamed(dir_okay=False),
    multiple=True,
    metavar="RESULTS.JSON",
    help="Results of flashcp run --results to hold predictions against; may be repeated.",
)
@json_option
def validate(names: tuple[str, ...], against: tuple[Path, ...], as_json: bool) -> None:
    """Measure errors on points left out of the fit, for the bundled profiles (or those named).

    Everything is fitted anew without the points that it then predicts: a bundled profile from its
    tables, inside the sampled range and outside; a calibrated one from the points in its file.
    Folds are fixed, so the figures are the same every time. With --against, predictions of plans
    are held against stored runs of them.
    """
    from costmodel.profile_file import bundled_profiles

    if against:
        from costmodel.validate_runs import validate_run

        errors = {str(path): validate_run(path, list(names)) for path in against}
    else:
        chosen = tuple(names) or tuple(bundled_profiles())
        errors = {name: _held_out(name) for name in chosen}
    if as_json:
        echo_json({"errors": [_error(name, e) for name, es in errors.items() for e in es]})
    else:
        from flashcp_cli.hardware_view import print_errors

        print_errors(errors)


def _held_out(name: str) -> "list[HeldOutError]":
    """Return the errors of a bundled profile, or of a file's points."""
    from costmodel.calibrated_errors import held_out
    from costmodel.profile_file import bundled_profiles, load_profile
    from costmodel.validate import require_table, validate

    if name not in bundled_profiles() and (name.endswith(".json") or Path(name).is_file()):
        return held_out(load_profile(name))
    require_table(name)
    return validate(name)


def _summary(profile: "Profile") -> dict[str, Any]:
    """Return the profile without its thousands of sampled calls, which its file holds."""
    document = profile.to_json()
    for fit in document["attention"]["fits"]:
        if fit["sampled"] is not None:
            del fit["sampled"]["equal"]
    return document


def _error(name: str, error: "HeldOutError") -> dict[str, Any]:
    return {"profile": name, **error.to_json()}
