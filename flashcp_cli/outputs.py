"""Checks the files that a command is to write before any work goes into them."""

import os
from collections.abc import Iterable
from pathlib import Path

import click


def check_outputs(outputs: dict[str, Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Refuse an output that could not be written, or would replace what it must not.

    That is an input, another output, where the command prints to, and anything that is no regular
    file. A link is taken for the file that it means.

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
        wrong = _wrong(path)
        if wrong is not None:
            raise click.BadParameter(wrong, param_hint=option)
        for source in read:
            if path.exists() and source.exists() and path.samefile(source):
                raise click.BadParameter(
                    f"{path} is an input of this command; name another file", param_hint=option
                )
        whole = Path(os.path.realpath(path))
        if whole in taken:
            raise click.BadParameter(
                f"{path} is already {taken[whole]}'s; name another file", param_hint=option
            )
        taken[whole] = option


def check_folder(option: str, path: Path | None) -> None:
    """Refuse a folder to write files into that is there as something else, or cannot be made.

    Raises:
        click.BadParameter: names the option, the path and the way out.
    """
    if path is None:
        return
    writable = path if path.exists() else path.parent
    if not writable.is_dir():
        wrong = f"{writable} is not a folder; name a folder, there or to be made"
    elif not os.access(writable, os.W_OK):
        wrong = f"{writable} is not writable; name another folder"
    else:
        return
    raise click.BadParameter(wrong, param_hint=option)


def _wrong(path: Path) -> str | None:
    """Say what is wrong with a path to write to, and the way out; None if nothing is."""
    from groundwork.atomic import obstacle

    if str(path) == "-":
        return "- is not taken for standard output; name a file (--json prints the results)"
    try:
        kind = obstacle(path)
    except OSError as error:
        return f"{path}: {error.strerror}; name another file"
    if _is_stream(path):
        return f"{path} is where this command prints to; name another file"
    if kind is not None:
        return f"{path} is {kind}, not a file; name a file"
    # A link's file may lie elsewhere; else the folder as the user named it.
    folder = Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent
    if not folder.is_dir():
        return f"{folder} is not a folder; create it first"
    if not os.access(folder, os.W_OK):
        return f"{folder} is not writable; name another file"
    return None


def _is_stream(path: Path) -> bool:
    """Tell whether a path is open as standard output or error, as /dev/stdout always is.

    To replace it would leave the report in a file without a name.
    """
    for stream in (1, 2):
        try:
            if os.path.samestat(path.stat(), os.fstat(stream)):
                return True
        except OSError:  # nothing there yet, or a closed stream
            continue
    return False
