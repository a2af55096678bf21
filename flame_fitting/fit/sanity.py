"""Whether a fitted head is sound, by region, and a watch over the loss of a stage while it runs.

Head models cross themselves as they come: lips that meet overlap, lids dip into the eyeballs. So crossings are counted
on the fitted head, on the same head without static offsets, and on the template; only what offsets add is a fault.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.fit.folds import adjacent_faces, folded_faces
from flame_fitting.fit.intersections import self_intersections
from flame_fitting.fit.region_weights import CAP, DEFAULT_CAP, by_region
from flame_fitting.head.model import HeadModel

REGIONS = ("face", "nose", "lips", "eyelids", "ears", "neck", "scalp")
AT_CAP = 0.999
"""Share of its cap from which an offset counts as held by it (results are stored in single precision)."""


@dataclass(frozen=True)
class RegionSanity:
    """Counts of one region; over time the largest. Triangles belong to a region with all three vertices."""

    triangles: int
    flipped: int
    """Triangles that static offsets turned by more than 90 degrees, or folded onto a neighbour."""
    crossing: int
    """Triangles of the fitted head that pass through another one, of any region, that shares no vertex with them."""
    crossing_without_offsets: int
    """The same count for the same pose and shape without static offsets, ..."""
    crossing_template: int
    """... and for the model's template."""
    crossing_new: int
    """Triangles that pass through another one with static offsets but not without."""
    vertices: int
    at_cap: int
    """Vertices whose static offset is as large as it may be."""
    offset_mm_max: float
    """Largest static offset, head-space mm."""
    smoothed: int = 0
    """Triangles around which a stage smoothed the static offsets, as they had turned them over (`fit.repair`)."""


@dataclass(frozen=True)
class SanityLimits:
    """From where a count becomes a warning, as a share of the region."""

    flipped: float = 0.002
    """Beside the face, where any is reported as `flipped_triangles`."""
    crossing_added: float = 0.1
    """More crossing triangles than without offsets. Lips that meet and rub differ by up to 8 % on sound fits."""
    at_cap: float = 0.05


def region_sanity(
    head: HeadModel,
    vertices: Float[ndarray, "T V 3"],
    without_offsets: Float[ndarray, "T V 3"],
    static_offset: Float[ndarray, "1 V 3"],
    timesteps: int = 8,
    smoothed: Iterable[int] = (),
) -> dict[str, RegionSanity]:
    """Counts by region, for those of `REGIONS` that the model has.

    Args:
        vertices: posed, head space, metres; `without_offsets` the same with static offsets of zero.
        timesteps: for how many of the timesteps, evenly spread, triangles are intersected.
        smoothed: triangles that stages repaired.
    """
    faces = head.faces.cpu()
    triangles = faces.numpy()
    now, before = (torch.as_tensor(np.asarray(v), dtype=torch.float64) for v in (vertices, without_offsets))
    flipped = folded_faces(now, before, faces, adjacent_faces(faces)).numpy()
    looked_at = np.unique(np.linspace(0, len(vertices) - 1, timesteps).round().astype(int))
    crossing = np.stack([self_intersections(vertices[t], triangles) for t in looked_at])
    without = np.stack([self_intersections(without_offsets[t], triangles) for t in looked_at])
    template = self_intersections(head.v_template.double().cpu().numpy(), triangles)
    repaired = np.zeros(len(triangles), dtype=bool)
    repaired[list(smoothed)] = True
    size = np.linalg.norm(static_offset[0], axis=-1)
    caps = by_region(head, CAP, DEFAULT_CAP).cpu().numpy()
    out = {}
    for name in REGIONS:
        inside, ids = head.face_mask(name).cpu().numpy(), np.flatnonzero(head.region_mask(name).cpu().numpy())
        if not len(ids):
            continue
        added = crossing[:, inside].sum(axis=1) - without[:, inside].sum(axis=1)
        worst = int(np.argmax(added))
        out[name] = RegionSanity(
            triangles=int(inside.sum()),
            flipped=int(flipped[:, inside].sum(axis=1).max()),
            crossing=int(crossing[worst, inside].sum()),
            crossing_without_offsets=int(without[worst, inside].sum()),
            crossing_template=int(template[inside].sum()),
            crossing_new=int((crossing & ~without)[worst, inside].sum()),
            vertices=len(ids),
            at_cap=int((size[ids] >= AT_CAP * caps[ids]).sum()),
            offset_mm_max=1000 * float(size[ids].max()),
            smoothed=int(repaired[inside].sum()),
        )
    return out


def as_metrics(sanity: dict[str, RegionSanity]) -> dict[str, dict[str, float]]:
    """Plain values, for metrics.json."""
    return {name: asdict(region) for name, region in sanity.items()}


def sanity_warnings(sanity: dict[str, RegionSanity], limits: SanityLimits | None = None) -> list[str]:
    """What static offsets spoil, in plain words; empty for a sound head."""
    limits = limits or SanityLimits()
    flipped, crossing, capped = [], [], []
    for name, region in sanity.items():
        if name != "face" and region.flipped > limits.flipped * region.triangles:
            flipped.append(f"{region.flipped} of the {name}")
        added = region.crossing - region.crossing_without_offsets
        if added > max(limits.crossing_added * region.triangles, 2):
            crossing.append(f"{region.crossing} of the {name} ({region.crossing_without_offsets} without offsets)")
        if region.at_cap > limits.at_cap * region.vertices:
            capped.append(f"{100 * region.at_cap / region.vertices:.0f} % of the {name}")
    out = []
    if flipped:
        out.append(f"Static offsets turn triangles inside out: {', '.join(flipped)}.")
    if crossing:
        out.append(f"Static offsets push triangles through each other: {', '.join(crossing)}.")
    if capped:
        out.append(f"Static offsets are at their largest size on {', '.join(capped)}: hair, or a head placed wrongly?")
    return out


class Watch:
    """Looks at the loss of a first-order stage as it is reported and says when there is no use going on.

    Like is compared with like: the losses of one stage, with the same terms and pictures of the same size. Where a
    stage begins is no measure, for an earlier one has left it at the minimum of other terms, and the regularisers of
    what has not moved yet are 0; Adam's first steps have the full size whatever the slopes are, so that the loss jumps
    and comes back. So the first reports are let pass. Losses are smoothed (exponential mean, corrected for its start,
    as Adam's). Views that change from step to step make losses differ by tens of per cent, never threefold.
    """

    def __init__(self, factor: float = 3.0, smoothing: float = 0.8, settle: int = 1, patience: int = 2) -> None:
        """It diverges with a smoothed loss of `factor` times the settled one that rose `patience` reports in a row.

        The settled loss is the first one after `settle` reports. Few must do: short stages read their loss four times.
        """
        self.factor, self.smoothing, self.settle, self.patience = factor, smoothing, settle, patience
        self.reason: str | None = None
        """What went wrong first; it stays."""
        self.restart()

    def as_dict(self) -> dict[str, Any]:
        """All that reports have left, as plain values for JSON."""
        return {name: list(value) if name == "_recent" else value for name, value in vars(self).items()}

    def take_up(self, left: dict[str, Any]) -> None:
        """Undoes `as_dict`."""
        vars(self).update(left | {"_recent": deque(left["_recent"], maxlen=self.patience + 1)})

    def restart(self) -> None:
        """Forgets the losses: what follows (another size of pictures, other terms) compares with nothing before."""
        self._passed, self._settled = 0, math.nan
        self._weighted, self._weight = 0.0, 0.0
        self._recent: deque[float] = deque(maxlen=self.patience + 1)

    def report(self, step: int, loss: float | None = None, finite: bool = True, drawn: int | None = None) -> str | None:
        """Takes one report; gives the reason to stop, or None.

        Args:
            loss: None where it was not read.
            finite: whether all parameters are.
            drawn: pixels of the head in the pictures of this step, where they were counted.
        """
        if self.reason is None:
            self.reason = self._look(step, loss, finite, drawn)
        return self.reason

    def _look(self, step: int, loss: float | None, finite: bool, drawn: int | None) -> str | None:
        if not finite:
            return f"the parameters are no longer finite at step {step}"
        if drawn == 0:
            return f"nothing of the head is in the pictures at step {step}"
        if loss is None:
            return None
        if not math.isfinite(loss):
            return f"the loss is no longer finite at step {step}"
        if self._passed < self.settle:
            self._passed += 1
            return None
        if math.isnan(self._settled):
            self._settled = loss
        self._weighted = self.smoothing * self._weighted + (1 - self.smoothing) * loss
        self._weight = self.smoothing * self._weight + 1 - self.smoothing
        self._recent.append(self._weighted / self._weight)
        begin, now = self._settled, self._recent[-1]
        rising = all(1.02 * a < b for a, b in zip(list(self._recent)[:-1], list(self._recent)[1:], strict=True))
        if len(self._recent) > self.patience and rising and now > self.factor * max(begin, 1e-12):
            return f"the loss went from {begin:.3g} to {now:.3g} by step {step}"
        return None


def nothing_drawn_error(name: str) -> InputError:
    """For a capture whose cameras see nothing of the head before anything was optimised."""
    return InputError(
        f"{name}: the first pictures show nothing of the head. Its cameras do not look at where the landmarks are. "
        "Check that transforms.json holds camera-to-world matrices with OpenGL's axes, all in one unit of length, or "
        "run `flame-fitting render` and `flame-fitting detect` again."
    )
