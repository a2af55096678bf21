"""What a viewer shows of a folder: the fit, and what of its capture and its avatar is still there."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.interface import Avatar
from flame_fitting.avatar.loading import load_avatar
from flame_fitting.capture.camera import transform_points
from flame_fitting.capture.capture import Capture
from flame_fitting.errors import InputError
from flame_fitting.fit.result import FitResult
from flame_fitting.fit.sources import open_fit, open_fit_and_head
from flame_fitting.head.model import HeadModel
from flame_fitting.manifest import read_manifest
from flame_fitting.report.sampling import head_at
from flame_fitting.report.surfaces import VisibleSurface, visible_surface


@dataclass(eq=False)
class Viewed:
    """A fit with all that is shown beside it.

    The shown frame is head space as the head stands at the first timestep: metres, +Y up, the face toward +Z.
    """

    fit: FitResult
    head: HeadModel
    capture: Capture | None = None
    avatar: Avatar | None = None
    notes: list[str] = field(default_factory=list)
    """What of it is not shown, and why: a sentence each."""
    _surfaces: dict[int, VisibleSurface | None] = field(default_factory=dict)

    @cached_property
    def shown_from_world(self) -> Float[ndarray, "4 4"]:
        """Similarity from the avatar's coordinates to the shown frame."""
        return head_at(self.fit, 0)

    @cached_property
    def shown_from_head(self) -> Float[ndarray, "4 4"]:
        """From head space, in which parameters pose the head."""
        return self.shown_from_world @ np.linalg.inv(self.fit.head_from_world)

    @property
    def name(self) -> str:
        """The fit's folder, with the folder that it is in."""
        folder = (self.fit.folder or Path()).resolve()
        return f"{folder.parent.name}/{folder.name}"

    @property
    def ordered(self) -> bool:
        """Whether its timesteps follow each other in time."""
        return self.capture is None or self.capture.ordered

    @property
    def has_geometry(self) -> bool:
        """Whether its capture has depth maps, which tell where the avatar's surface is."""
        return self.capture is not None and any(view.geometry_path is not None for view in self.capture.views)

    def surface(self, row: int) -> VisibleSurface | None:
        """The avatar as the fit's views saw it at a timestep, in head space; made once. None without depth maps."""
        if row not in self._surfaces:
            made = None
            if self.capture is not None and self.has_geometry:
                made = visible_surface(self.capture, self.fit.head_from_world, self.capture.timesteps[row])
            self._surfaces[row] = made
        return self._surfaces[row]

    def surface_points(self) -> Float[ndarray, "M 3"] | None:
        """Points of that surface at the first timestep in the shown frame: what stands for an avatar without file."""
        surface = self.surface(0)
        return None if surface is None else transform_points(self.shown_from_head, surface.points)


def open_viewed(
    folder: Path,
    capture_folder: Path | None = None,
    avatar_file: Path | None = None,
    head_spec: str | None = None,
    flame_dir: Path | None = None,
    flame_masks: Path | None = None,
) -> Viewed:
    """Opens a fit. A capture or an avatar that is not there is said in `notes`; one that was asked for is an error."""
    chosen = (head_spec, flame_dir, flame_masks)
    try:
        fit, head, capture = open_fit(folder, capture_folder, *chosen)
        viewed = Viewed(fit, head, capture)
    except InputError as error:
        if capture_folder is not None:
            raise
        viewed = Viewed(*open_fit_and_head(folder, *chosen))
        viewed.notes.append(f"No cameras, pictures and distances: {error}")
    viewed.avatar = _avatar(viewed, avatar_file)
    return viewed


def _avatar(viewed: Viewed, asked: Path | None) -> Avatar | None:
    if asked is not None:
        return load_avatar(asked)
    if viewed.capture is None or viewed.capture.avatar.file is None:
        return None
    places = list(_places(viewed.capture))
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        viewed.notes.append(f"{places[0]}: the avatar is not there, its surface is shown as points. Give --avatar.")
        return None
    try:
        avatar = load_avatar(path)
    except InputError as error:
        viewed.notes.append(f"The avatar is shown as points: {error}")
        return None
    if viewed.capture.avatar.sha256 not in (None, avatar.file_hash):
        viewed.notes.append(f"{path}: the avatar has changed since the capture was made of it.")
    return avatar


def _places(capture: Capture) -> Iterator[Path]:
    """Where an avatar's file may lie: as the manifest says, as it was given, beside the capture."""
    made = read_manifest(capture.root)
    recorded = made.input_path("avatar", capture.root) if made is not None else None
    if recorded is not None:
        yield recorded
    given = Path(capture.avatar.file or "")
    yield given
    yield capture.root.parent / given.name
