"""Reads and writes profile files: versioned JSON, checked on load, written whole or not at all."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from costmodel.checks import Fields, read_json
from costmodel.errors import ProfileError
from costmodel.names import nearest
from costmodel.profile import Profile
from groundwork.atomic import replace_whole

FORMAT = "flashcp-profile"
VERSION = 2
"""What is written. Version 1 is read too: it had no `exchange_overlap_factor`, taken for 1, and no
curves of groups that span nodes. `message_us` may be missing from either."""
_READS = (1, 2)

_NUMBERS = re.compile(r"\[([-+.0-9eE,\s]+)\]")


def bundled_profiles() -> list[str]:
    """Return the names of the profiles that come with the package."""
    return sorted(path.stem for path in _folder().glob("*.json"))


def load_profile(name_or_path: str | Path) -> Profile:
    """Return a bundled profile by name, or the one in a file.

    Args:
        name_or_path: a name of `bundled_profiles()`, or the path of a profile file.

    Raises:
        ProfileError: an unknown name (the nearest is suggested), or a file that is missing,
            broken or of another version; names the field and value.
    """
    name = str(name_or_path)
    if name in bundled_profiles():
        return _bundled(name)
    path = Path(name_or_path)
    if path.suffix == ".json" or path.is_file():
        return read_profile(path)
    raise ProfileError(
        f"hardware {name!r} is neither a bundled profile nor a profile file;"
        f" {nearest(name, bundled_profiles())}"
    )


def read_profile(path: Path) -> Profile:
    """Read and check the profile file at `path`; raises ProfileError naming field and value."""
    document = read_json(path, "profile")
    fields = Fields(document, f"profile {path}")
    if document.get("format") != FORMAT:
        raise fields.fail("format", f"is {document.get('format')!r}, not {FORMAT!r}")
    version = document.get("version")
    if version not in _READS or isinstance(version, bool):
        age = ""
        if isinstance(version, int) and not isinstance(version, bool):
            age = (
                "; it is newer than this program: update flashcp"
                if version > VERSION
                else "; it is older than this program: calibrate again"
            )
        raise fields.fail("version", f"is {version!r}, but this program reads 1 and 2{age}")
    try:
        return Profile.from_json(fields)
    except ProfileError as error:
        if fields.where in str(error):
            raise
        # Checks that a part makes of itself know nothing of files.
        raise ProfileError(f"{fields.where}: {error}") from None


def profile_text(profile: Profile) -> str:
    """Return the text of a profile's file."""
    document = {"format": FORMAT, "version": VERSION, **profile.to_json()}
    text = json.dumps(document, indent=1, allow_nan=False)
    # A list of numbers on one line: a file that people read has tens of lines, not thousands.
    return _NUMBERS.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text) + "\n"


def write_profile(profile: Profile, path: Path) -> None:
    """Write `profile` to `path`, whole or not at all; raises OSError as the file system does."""
    with replace_whole(path) as temporary:
        temporary.write_text(profile_text(profile), encoding="utf-8")


@cache
def _bundled(name: str) -> Profile:
    return read_profile(_folder() / f"{name}.json")


def _folder() -> Path:
    return Path(str(files("costmodel") / "data" / "profiles"))
