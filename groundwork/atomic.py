"""Files that are written whole or not at all.

The bytes go to a temporary file in the same folder, are forced to the disk, and then take the name
in one step. A full disk, a crash or Ctrl-C half-way leaves what was there before. A link is
followed to the file that it means, and a file that is replaced keeps its permissions. Only a
regular file is ever replaced: to put a file in the place of a device, as a rename by root would,
breaks the machine for everybody.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = 32  # of a temporary file's name; 128 bytes at most
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def obstacle(path: Path) -> str | None:
    """Say what is at `path` that must not be replaced.

    Args:
        path: a file to write; links are followed.

    Returns:
        "a folder", "a pipe", "a device" or "a socket"; None for a regular file or nothing.

    Raises:
        OSError: `path` cannot be looked at: links in a circle, a folder without permission.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


@contextmanager
def replace_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; once the block ends well it replaces `path`.

    Args:
        path: the file to make or replace; where it is a link, the file that the link means.

    Yields:
        The temporary file's path; whatever the block leaves there becomes `path`.

    Raises:
        OSError: the folder cannot be written, the disk is full, or `path` is a folder, a device, a
            pipe or a socket; `path` is then as it was.
    """
    kind = obstacle(path)
    if kind is not None:
        code = errno.EISDIR if kind == "a folder" else errno.EINVAL
        raise OSError(code, f"cannot replace {kind}; name a regular file", str(path))
    meant = Path(os.path.realpath(path))
    try:
        # Not the whole name: a long one would leave no room for what makes it temporary.
        handle, name = tempfile.mkstemp(
            prefix=f".{meant.name[:_PREFIX]}.", suffix=".tmp", dir=meant.parent
        )
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(_mode(meant))  # mkstemp's own mode would lock out everybody else
        temporary.replace(meant)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a write that fails does not say what it wrote
        raise
    folder = os.open(meant.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, must outlast a crash
    finally:
        os.close(folder)


def _mode(path: Path) -> int:
    """Return the mode of a file that is to be replaced, or that any new one gets."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
