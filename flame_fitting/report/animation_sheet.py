"""The picture of a fit's animation: each pose from the front, in grey from its left, its eyes and mouth close by."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.report.animation import Animation
from flame_fitting.report.drawing import Cameras, draw_in_head_space
from flame_fitting.report.figures import labelled, write_jpeg

NAME = "animation"
_FACE, _DETAIL = (220, 268), (264, 132)
"""Pixels, width and height; two details stand one above the other beside two faces."""
_TURNED = 40.0
"""Degrees toward the subject's left. In grey, as a painted lid hides how the mesh is shaped."""
_FOV = 12.0
_STRIP, _GAP, _LINE = 74, 24, 4
"""Pixels for the text above a pose, between poses, and between the pictures of one."""


@dataclass(frozen=True, eq=False)
class PosePicture:
    """One pose: what it is, its numbers in words, and how it looks."""

    title: str
    said: list[str]
    picture: UInt8[ndarray, "h w 3"]


def write_animation(folder: Path, fit: FitResult, head: HeadModel, animation: Animation) -> list[PosePicture]:
    """Writes overlays/animation.jpg; gives what stands in it."""
    pictures = pose_pictures(fit, head, animation)
    write_jpeg(folder / "overlays" / f"{NAME}.jpg", joined_sheet(animation, pictures))
    return pictures


def animation_sheet(fit: FitResult, head: HeadModel, animation: Animation) -> UInt8[ndarray, "H W 3"]:
    """All poses, two beside each other, seen by the same cameras, with their numbers above them."""
    return joined_sheet(animation, pose_pictures(fit, head, animation))


def pose_pictures(fit: FitResult, head: HeadModel, animation: Animation) -> list[PosePicture]:
    """Of every pose, in their order: from the front, in grey from its left, eyes and mouth close by."""
    cameras, out = sheet_cameras(head, animation), []
    grey = replace(fit, texture=None, lights=None)
    for pose in animation.poses:
        front, *details = draw_in_head_space(fit, head, pose.vertices, [cameras.front, *cameras.details])
        turned = draw_in_head_space(grey, head, pose.vertices, [cameras.turned])[0]
        seen = [[to_uint8(picture.transpose(1, 2, 0)) for picture in each] for each in (front, turned, *details)]
        row = joined([joined(each, 0) for each in seen], 1)
        out.append(PosePicture(pose.title, _in_words(animation.numbers[pose.name]), row))
    return out


def joined_sheet(animation: Animation, pictures: list[PosePicture]) -> UInt8[ndarray, "H W 3"]:
    """The pictures in the animation's rows of two."""
    left, rows = list(pictures), []
    for pair in animation.rows:
        panels = []
        for _ in pair:
            one = left.pop(0)
            text = "\n".join([one.title, *one.said])
            panels.append(np.concatenate([labelled(_white(_STRIP, one.picture.shape[1]), text), one.picture]))
        panels += [np.full_like(panels[0], 255)] * (2 - len(panels))
        rows.append(joined(panels, 1, _GAP))
    return np.concatenate(rows)


def joined(pictures: list[ndarray], axis: int, gap: int = _LINE) -> UInt8[ndarray, "H W 3"]:
    """Pictures below (axis 0) or beside each other, with white between them."""
    height, width = pictures[0].shape[:2]
    between = _white(gap, width) if axis == 0 else _white(height, gap)
    return np.concatenate([part for picture in pictures for part in (between, picture)][1:], axis=axis)


def _white(height: int, width: int) -> UInt8[ndarray, "H W 3"]:
    return np.full((height, width, 3), 255, dtype=np.uint8)


class SheetCameras(NamedTuple):
    """What all poses are seen by."""

    front: Cameras
    turned: Cameras
    details: list[Cameras]
    """Two before both eyes and before the mouth, in one entry; none where they cannot be told."""


def sheet_cameras(head: HeadModel, animation: Animation) -> SheetCameras:
    """Cameras that have the face in their pictures, its jaw open too."""
    face, eyes, lips = (head.region_mask(name).cpu().numpy() for name in ("face", "eyes", "lips"))
    poses = {pose.name: pose.vertices for pose in animation.poses}
    neutral, widest = poses["neutral"], poses.get("jaw_open", poses["neutral"])
    seen = np.concatenate([each[face] if face.any() else each for each in (neutral, widest)])
    details = []
    if eyes.any() and lips.any():
        one = camera_before(neutral[eyes], _DETAIL, 1.0)
        two = camera_before(np.concatenate([neutral[lips], widest[lips]]), _DETAIL, 1.3)
        poses_of_both = np.concatenate([one.head_to_camera, two.head_to_camera])
        details.append(Cameras(np.concatenate([one.K, two.K]), poses_of_both, _DETAIL))
    return SheetCameras(camera_before(seen, _FACE, 1.1), camera_before(seen, _FACE, 1.1, _TURNED), details)


def camera_before(points: Float[ndarray, "N 3"], size: tuple[int, int], margin: float, yaw: float = 0.0) -> Cameras:
    """One that has all points in a picture of `size` (W, H); `margin` is its height over what they need."""
    low, high = points.min(0), points.max(0)
    middle, extent = 0.5 * (low + high), high - low
    tall = margin * max(extent[1], extent[0] * size[1] / size[0])
    distance = 0.5 * tall / np.tan(np.radians(_FOV / 2)) + 0.5 * extent[2]
    toward = np.array([np.sin(np.radians(yaw)), 0.0, np.cos(np.radians(yaw))])
    camera = look_at(middle + distance * toward, middle, [0.0, 1.0, 0.0])
    return Cameras(intrinsics_from_fov(_FOV, *size)[None], camera[None], size)


def _in_words(numbers: dict[str, Any]) -> list[str]:
    """A line about the lips and one about the lids."""
    lips, lids = [], []
    if "lip_gap_mm" in numbers:
        gap = numbers["lip_gap_mm"]
        lips.append(f"{round(gap, 1) + 0.0:.1f} mm apart" if gap > -0.05 else f"{-gap:.1f} mm past each other")
        right, left = (round(gap, 1) + 0.0 for gap in numbers["lid_gap_mm"])
        lids.append(f"right {right:.1f}, left {left:.1f} mm apart")
    if "lips_crossing" in numbers:
        deep = f", {numbers['lips_depth_mm']:.2f} mm deep" if numbers.get("lips_depth_mm") else ""
        lips.append(f"{numbers['lips_crossing']} triangles cross{deep}")
    if "lids_depth_mm" in numbers:
        lids.append(f"eyeballs {numbers['lids_depth_mm']:.2f} mm through lids")
    if numbers.get("teeth_crossing"):
        lips.append(f"{numbers['teeth_crossing']} triangles of teeth go through")
    return [f"{name}: {'; '.join(said)}" for name, said in (("lips", lips), ("lids", lids)) if said]
