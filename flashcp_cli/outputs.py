"""Checks the files that a command is to write before any work goes into them."""

import os
from collections.abc import Iterable
from pathlib import Path

import click


def check_outputs(outputs: dict[str, Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Refuse an output that could not be written, or would replace an input or another output.

    Args:
        outputs: option name -> path, None where the option was not given.
        inputs: what the user named as inputs; words that are no files are fine.

    Raises:
        click.BadParameter: names the option, the path and the way out.
    """
    read = [Path(word) for word in inputs if word is not None and os.path.lexists(word)]
    taken: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        if path.is_dir():
            raise click.BadParameter(f"'{path}' is a folder, not a file", param_hint=option)
        if not path.parent.is_dir():
            raise click.BadParameter(f"{path.parent} is not a folder", param_hint=option)
        if not os.access(path.parent, os.W_OK):
            raise click.BadParameter(f"{path.parent} is not writable", param_hint=option)
        for source in read:
            if path.exists() and source.exists() and path.samefile(source):
                raise click.BadParameter(
                    f"{path} is an input of this command; name another file", param_hint=option
                )
        whole = path.resolve()
        if whole in taken:
            raise click.BadParameter(
                f"{path} is already {taken[whole]}'s; name another file", param_hint=option
            )
        taken[whole] = option
