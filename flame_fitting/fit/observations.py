"""What a capture says about a head, whatever kind of capture it is, in the reference frame; stages only read it."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from flame_fitting.capture.capture import Capture
from flame_fitting.fit.dense import DenseMaps
from flame_fitting.fit.pictures import Pictures, load_pictures
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.texture import TexelMaps
from flame_fitting.head.model import HeadModel
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.render.interface import Rasterizer


@dataclass(eq=False)
class Observations:
    """Landmarks, surface and pictures of T frames, told in terms of one head model."""

    head: HeadModel
    """Double precision."""
    targets: list[FrameTarget]
    """T: landmarks and surface of each frame; a frame in which no face was found has neither."""
    surface: SurfaceWeights
    """How much each part of the head is pulled to the surface."""
    rasterizer: Rasterizer | None = None
    """None where there is nothing to draw with: the head model has no texture coordinates, or no pictures are used."""
    pictures: Pictures | None = None
    dense: DenseMaps | None = None
    """What other programs say of every pixel, where a capture brings such maps."""
    texels: TexelMaps | None = None
    lit: bool = False
    """Whether the pictures show a light that stands still, to be told apart from the skin's colour."""
    name: str = "the capture"
    """What messages call it."""
    calibrated: bool = True
    """Whether the cameras are known; else their common focal length is estimated."""
    of_sequence: bool = False
    """Whether these are some timesteps of a capture over time; where there are several, they are anyway."""
    moments: tuple[str, ...] = ()
    """Names of the timesteps where they are moments of one person in no order; none: over time, or one moment alone."""
    at_rest: int | None = None
    """Row of the moment that is known to be nearest to rest."""

    @property
    def is_sequence(self) -> bool:
        """Whether the head moves from timestep to timestep: the gauge of all of them (`parameters.moving_parts`)."""
        return self.of_sequence or len(self.targets) > 1

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.targets)

    def of_frames(self, rows: Sequence[int]) -> "Observations":
        """Those of some timesteps, which become the first, second ... one."""
        pictures = None if self.pictures is None else self.pictures.of_frames(rows)
        dense = None if self.dense is None else self.dense.of_frames(rows)
        targets = [self.targets[row] for row in rows]
        moments = tuple(self.moments[row] for row in rows) if self.moments else ()
        at_rest = next((number for number, row in enumerate(rows) if row == self.at_rest), None)
        own = {"targets": targets, "pictures": pictures, "dense": dense, "moments": moments, "at_rest": at_rest}
        return replace(self, of_sequence=self.is_sequence, **own)  # type: ignore[arg-type]

    def zoomed(self, log_focal: float) -> "Observations":
        """What a camera shows with exp(log_focal) times the assumed focal length; of calibrated ones the same."""
        if self.calibrated or not log_focal:
            return self
        factor = math.exp(log_focal)
        targets = [replace(t, sources=tuple(source.zoomed(factor) for source in t.sources)) for t in self.targets]
        pictures = None if self.pictures is None else self.pictures.zoomed(factor)
        return replace(self, targets=targets, pictures=pictures)

    @property
    def valid(self) -> list[bool]:
        """(T,) whether anything was seen of a timestep; one without is carried by its neighbours and the priors."""
        return [target.surface is not None or target.n_seen > 0 for target in self.targets]

    @property
    def with_face(self) -> list[int]:
        """The timesteps of which something was seen."""
        return [row for row, valid in enumerate(self.valid) if valid]

    def to(self, device: torch.device) -> "Observations":
        """With everything that stages compute with on a device; pictures are on the rasterizer's already."""
        targets = [target.to(device) for target in self.targets]
        # a module moves in place, and these observations stay where they are
        head = copy.deepcopy(self.head).to(device)
        return replace(self, head=head, targets=targets, surface=self.surface.to(device))


def with_pictures(
    seen: Observations, capture: Capture, reference_from_world: np.ndarray, device: torch.device, limit: int
) -> Observations:
    """With a rasterizer and the capture's pictures, for texture and photometric stages; `limit` bytes of them are kept.

    Pictures are those of the views that are fitted to, and what other programs say of their pixels comes with them.
    """
    rasterizer = make_rasterizer(device)
    chosen = capture.views_of("fit") or capture.views
    pictures = load_pictures(capture, chosen, reference_from_world, device, limit)
    dense: DenseMaps | None = None
    if any(view.dense_path for view in chosen):
        row = {timestep: number for number, timestep in enumerate(capture.timesteps)}
        frames = tuple(row[view.timestep] for view in chosen)
        dense = DenseMaps(capture, tuple(chosen), frames, pictures.resolution)
    texels = TexelMaps(rasterizer, seen.head)
    return replace(seen, rasterizer=rasterizer, texels=texels, pictures=pictures, dense=dense)
