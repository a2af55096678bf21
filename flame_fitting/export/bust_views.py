"""What a dataset does about views from below that look into an open bust (`open_bust.py`).

Pixels of the inside are cut. A view that would lose too much is left out, for a hole where others show a shoulder
teaches empty space; where most views from below would go, the bust is open all round, and all stay, cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from flame_fitting.capture.capture import Capture
from flame_fitting.export.frames import Frame, in_dataset
from flame_fitting.export.neck_surface import NeckSurface, keep_above, posed_neck
from flame_fitting.export.open_bust import HeadFrame, OpenBust
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix

Mask = NDArray[np.bool_]

_TOO_MUCH = 0.15
"""Part of what a view shows above the neck's cut from which it is left out."""
_CRUMB = 0.01
"""Part of what a view shows below which a piece beside a cut goes with it."""
_CHIN = 0.08
"""Metres of the chin above the cut through the neck, where the head model does not say."""


@dataclass(frozen=True, eq=False)
class BustViews:
    """Views that stay, views that are left out, and what is cut of those that stay."""

    frames: list[Frame]
    left_out: list[Frame] = field(default_factory=list)
    cut: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    """Pixels of the inside by the frame's name, packed."""

    def outside(self, frame: Frame) -> NDArray[np.float32] | None:
        """(H, W) 0 where a picture is cut, else 1; None where nothing is."""
        packed = self.cut.get(frame.name)
        if packed is None:
            return None
        height, width = frame.view.height, frame.view.width
        return (1 - np.unpackbits(packed, count=height * width).reshape(height, width)).astype(np.float32)

    def said(self) -> list[str]:
        """One sentence on what is left out, for the user."""
        if not self.left_out:
            return []
        names = ", ".join(frame.name for frame in self.left_out[:8]) + (" ..." if len(self.left_out) > 8 else "")
        return [
            f"{len(self.left_out)} views from below look far into the open bust and are left out: {names}. "
            "--no-mask-below-line keeps them."
        ]


def bust_views(
    capture: Capture,
    frames: Sequence[Frame],
    dataset_from_world: NDArray[np.float64],
    fit: FitResult,
    head: HeadModel,
    surface: NeckSurface | None,
) -> BustViews:
    """Which of the `frames` of a dataset stay, and how they are cut; all of them where there is no `surface` or depth.

    `fit` is in the dataset's world; other views of the capture tell what is inside, whether exported or not.
    """
    stay, out, cut = list[Frame](), list[Frame](), dict[str, NDArray[np.uint8]]()
    faces = head.faces.cpu().numpy()
    for row in dict.fromkeys(frame.row for frame in frames):
        of_row = [frame for frame in frames if frame.row == row]
        if surface is None or all(frame.view.geometry_path is None for frame in of_row):
            stay += of_row
            continue
        vertices, plane = fit.vertices_head(head, [row])[0], posed_neck(surface, fit, row)
        axes = rotation_matrix(torch.as_tensor(np.float64(fit.of_rows([row]).parameters["rotation"])))[0].numpy()
        face = vertices[head.regions["face"].cpu().numpy()] if "face" in head.regions else None
        center = vertices.mean(axis=0)
        low = plane.center + _CHIN * axes[:, 1] if face is None else face
        chin = float(((low - center) @ axes[:, 1]).min())
        views = capture.views_of(timestep=of_row[0].view.timestep)
        bust = OpenBust(capture, views, dataset_from_world, HeadFrame(center, axes, chin))
        inside, lost, shown = dict[str, Mask](), dict[str, int](), dict[str, int]()
        for frame in of_row:
            if frame.view.geometry_path is None or not bust.looks_up(frame.view):
                continue
            view, depth = in_dataset(frame.view, dataset_from_world), bust.depth(frame.view)
            keep = keep_above(plane, view, depth, vertices, faces)
            shows = (depth > 0) & (keep > 0.5)
            shown[frame.name] = int(shows.sum())
            if (mask := bust.inside(frame.view, keep)) is not None:
                mask = with_rest(mask, (depth > 0) & (keep > 0), depth == 0)
                inside[frame.name], lost[frame.name] = mask, int((mask & shows).sum())
        gone = left_out(lost, shown)
        stay += [frame for frame in of_row if frame.name not in gone]
        out += [frame for frame in of_row if frame.name in gone]
        cut |= {name: np.packbits(mask) for name, mask in inside.items() if name not in gone}
    return BustViews(stay, out, cut)


def with_rest(mask: Mask, shown: Mask, empty: Mask) -> Mask:
    """What is cut, with what a cut leaves: slivers of a rim's outside, and the outline of what is gone.

    `shown`: what there is to cut; `empty`: pixels whose centre shows nothing, though a part of them may be covered.
    """
    rest = (shown & ~mask).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(rest, connectivity=8)
    beside = np.unique(labels[_grown(mask)])
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < _CRUMB * shown.sum())
    mask = mask | np.isin(labels, np.setdiff1d(np.intersect1d(beside, small), [0]))
    return mask | (_grown(mask) & empty)


def _grown(mask: Mask) -> Mask:
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def left_out(lost: Mapping[str, int], shown: Mapping[str, int]) -> set[str]:
    """Names of the views of a timestep that lose too much.

    `shown` counts the pixels of all its views from below, `lost` those of views that are cut.
    """
    gone = {name for name, count in lost.items() if count > _TOO_MUCH * shown[name]}
    return set() if 2 * len(gone) > len(shown) else gone
