"""Keeps what was measured on disk, point by point, until the profile is written.

One JSON object a line: first what the points are measured on, then a point a line, as it comes, and
notes of progress in between. An interrupted calibration therefore resumes: points of the same
conditions are not measured again, a last line cut short by a crash is dropped, and points of other
conditions (another torch, another device) are dropped with a word about it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costmodel.calibrated_points import Point, identity, point_from_json, point_to_json
from costmodel.checks import Fields
from costmodel.errors import ProfileError
from groundwork.atomic import replace_whole

_FORMAT = "flashcp-calibration"


@dataclass(frozen=True)
class Progress:
    """How far a calibration is.

    Attributes:
        done: points measured.
        planned: points to measure, those done included.
        left_s: seconds that the rest will take.
        stage: what is being measured.
    """

    done: int
    planned: int
    left_s: float
    stage: str


class Store:
    """The points of one calibration.

    Attributes:
        path: the file.
        points: what it holds.
        resumed: how many of them were there when it was opened.
        facts: numbers that decide what to measure; kept so that resuming decides alike.
    """

    def __init__(self, path: Path, conditions: dict[str, Any]) -> None:
        """Open `path`, keeping points that were measured under the same conditions.

        Raises:
            OSError: the file or its folder cannot be written.
        """
        self.path = path
        known, points = read_points(path)
        same = known == conditions
        self.points: list[Point] = points if same else []
        self.resumed = len(self.points)
        self.facts: dict[str, float] = {}
        for line in _lines(path) if same else ():
            self.facts.update(line.get("facts", {}))
        with replace_whole(path) as temporary:
            lines = [{"format": _FORMAT, "conditions": conditions}]
            lines += [{"facts": self.facts}] if self.facts else []
            lines += [point_to_json(point) for point in self.points]
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self._file = path.open("a")
        self._places = {_key(identity(point)): i for i, point in enumerate(self.points)}

    def holds(self, what: dict[str, Any]) -> bool:
        """Tell whether a point of this identity was measured already."""
        return _key(what) in self._places

    def add(self, point: Point) -> None:
        """Keep a point, in place of one of the same identity."""
        _put(point, self.points, self._places)
        self._write(point_to_json(point))

    def fact(self, name: str, value: Callable[[], float]) -> float:
        """Return the number kept under `name`, else find it out and keep it."""
        if name not in self.facts:
            self.facts[name] = value()
            self._write({"facts": {name: self.facts[name]}})
        return self.facts[name]

    def note(self, progress: Progress) -> None:
        """Note how far it is, for whoever watches the file."""
        self._write({"progress": vars(progress)})

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def read_points(path: Path) -> tuple[dict[str, Any] | None, list[Point]]:
    """Return the conditions and points in a file; None and nothing where it holds none of ours."""
    lines = _lines(path)
    if not lines or lines[0].get("format") != _FORMAT:
        return None, []
    points: list[Point] = []
    places: dict[str, int] = {}
    for line in lines[1:]:
        if "kind" in line:
            try:
                _put(point_from_json(Fields(line, f"calibration {path}")), points, places)
            except ProfileError:
                return None, []  # of another version
    return lines[0].get("conditions"), points


def read_progress(path: Path) -> Progress | None:
    """Return the last note of progress in a file."""
    for line in reversed(_lines(path)):
        if "progress" in line:
            return Progress(**line["progress"])
    return None


def _lines(path: Path) -> Sequence[dict[str, Any]]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    lines = []
    for row in text.splitlines():
        try:
            line = json.loads(row)
        except ValueError:
            break  # cut short by a crash; nothing after it can be trusted
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _put(point: Point, points: list[Point], places: dict[str, int]) -> None:
    """Append a point, or put it in the place of one that was measured before."""
    place = places.setdefault(_key(identity(point)), len(points))
    points[place : place + 1] = [point]


def _key(what: dict[str, Any]) -> str:
    return json.dumps(what, sort_keys=True)
