"""Says how long the rest of a calibration will take, stage by stage.

What is left of the present stage takes as long as what it has measured so far says, and never
longer than its time; what stages to come still lack takes the share of their time that it is of
their points. So the time left falls as a rule, also where an interrupted calibration goes on.
"""

from collections.abc import Sequence

from costmodel.calibrated_points import Point
from executor.calibration.store import Progress

_KINDS = {
    "copies": ("copy", "launch", "queue", "matmul"),
    "attention": ("attention",),
    "exchanges": ("transfer",),
    "overlap": ("overlap",),
}


class Countdown:
    """Estimates of one calibration.

    Attributes:
        stage_s: seconds that each stage may take, in their order.
        planned: points of each stage.
    """

    def __init__(self, stage_s: dict[str, float]) -> None:
        self.stage_s = stage_s
        self.planned = dict.fromkeys(stage_s, 0)
        self._begun: dict[str, tuple[float, int]] = {}

    def progress(
        self, stage: str, points: Sequence[Point], now_s: float, underway: float = 0.0
    ) -> Progress:
        """Return how far it is.

        Args:
            stage: what is being measured; its time runs from its first mention.
            points: everything measured so far.
            now_s: the time.
            underway: points of the stage that are as good as measured.
        """
        stages = list(self.stage_s)
        known = {name: sum(p.kind in _KINDS[name] for p in points) for name in stages}
        began_s, at_first = self._begun.setdefault(stage, (now_s, known[stage]))
        spent_s, new = now_s - began_s, known[stage] + underway - at_first
        here_s = self.stage_s[stage] - spent_s
        if new > 0:
            here_s = min(here_s, spent_s / new * (self.planned[stage] - known[stage] - underway))
        later_s = sum(
            self.stage_s[name] * (1 - known[name] / self.planned[name])
            for name in stages[stages.index(stage) + 1 :]
            if self.planned[name]
        )
        return Progress(
            done=len(points) + int(underway),
            planned=sum(self.planned.values()),
            left_s=max(here_s, 0.0) + later_s,
            stage=stage,
        )
