"""Files that are written whole or not at all.

The bytes go to a temporary file in the same folder, are forced to the disk, and then take the name
in one step. A full disk, a crash or Ctrl-C half-way leaves what was there before.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; once the block ends well it replaces `path`.

    Args:
        path: the file to make or replace.

    Yields:
        The temporary file's path; whatever the block leaves there becomes `path`.

    Raises:
        OSError: the folder cannot be written or the disk is full; `path` is then as it was.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp's own mode would lock out everybody else
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a write that fails does not say what it wrote
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, must outlast a crash
    finally:
        os.close(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
