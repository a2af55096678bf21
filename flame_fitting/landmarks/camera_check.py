"""Whether cameras and landmarks belong together: triangulated landmarks must reproject.

Where they do not, the conventions are named under which they would: the direction and the axes of the extrinsics, the
picture size that the intrinsics are for, a principal point that is measured from the bottom.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.capture.camera import project
from flame_fitting.capture.capture import Capture
from flame_fitting.landmarks.files import Landmarks2D
from flame_fitting.landmarks.lifting import triangulate
from flame_fitting.landmarks.outliers import face_sizes
from flame_fitting.landmarks.schemes import EYE_CORNERS, INNER_51, SCHEMES

FileConvention = Literal["w2c opencv", "c2w opengl"]
"""What the extrinsics of a file were taken for when it was read."""

_GOOD = 0.03
"""Reprojection error over the size of the face up to which nothing else is tried."""
_FITS = 0.06
"""One that a convention must leave; MediaPipe leaves 0.027 on views all around a head."""
_BAD = 0.08
"""One that no detector makes alone."""
_BETTER = 0.4
"""A convention fits better where it leaves less than this share of the error."""
_MOST_POINTS = 24
_MOST_STEPS = 4
_ITERATIONS = 5
"""Of the robust triangulation; its medians need no more."""
_SCALES = tuple(2.0**power for power in (-3, -2, -1, 1, 2, 3))
_AXES = {
    "OpenCV's axes (x right, y down, z forward)": np.diag([1.0, 1.0, 1.0, 1.0]),
    "OpenGL's or Blender's axes (x right, y up, z back)": np.diag([1.0, -1.0, -1.0, 1.0]),
    "PyTorch3D's axes (x left, y up, z forward)": np.diag([-1.0, -1.0, 1.0, 1.0]),
}
_EYES_M = 0.090
"""Distance of the outer eye corners of an adult, m."""
_UNITS = {"m": 1.0, "dm": 10.0, "cm": 100.0, "mm": 1000.0, "inch": 39.37}


@dataclass(frozen=True)
class CameraReport:
    """What was found."""

    error: float
    """Median distance of landmarks from their reprojections over the face's size in the picture (the root mean square
    distance of its landmarks from their middle); infinite where the points lie behind cameras, NaN where no landmark
    was seen by two cameras apart."""
    fitting: tuple[str, ...] = ()
    """Conventions under which the cameras would fit, the best first; none where the cameras are right."""
    fitting_error: float = float("nan")
    """Error under the first of them."""
    eye_distance: float = float("nan")
    """Distance of the outer eye corners in the world's units, under the best convention."""
    unit: str | None = None
    """Unit of the world that this distance suggests; None where it fits none."""

    @property
    def known(self) -> bool:
        """Whether anything could be measured."""
        return not np.isnan(self.error)

    @property
    def wrong(self) -> bool:
        """Whether the cameras do not belong to the landmarks as they were read."""
        return self.known and (self.error > _BAD or bool(self.fitting))

    def message(self, name: str) -> str | None:
        """What is to be said of the capture `name`; None where all is well."""
        if not self.wrong:
            return None
        size = "behind the cameras" if np.isinf(self.error) else f"{100 * self.error:.0f} % of the face's size off"
        begin = f"{name}: the cameras do not fit the pictures: landmarks that are triangulated lie {size}."
        if not self.fitting:
            return f"{begin} No usual change of convention mends that. Check that these are the pictures' own cameras."
        fits = "; or ".join(self.fitting)
        return f"{begin} They would fit ({100 * self.fitting_error:.1f} %) with: {fits}. Correct the file."


def is_checked(capture: Capture) -> bool:
    """Whether a capture's cameras can be wrong: several that somebody else measured, not those it was rendered with."""
    rendered = capture.avatar.file is not None or any(view.geometry_path is not None for view in capture.views)
    return capture.calibrated and len(capture.cameras) > 1 and not rendered


def check_capture(capture: Capture, detected: Landmarks2D) -> CameraReport:
    """Checks the cameras of a capture by landmarks of its views, as `read_landmarks` gives them.

    Cameras that move are taken for as many as they have places.
    """
    scheme = SCHEMES.get(detected.scheme)
    read_as: FileConvention = "c2w opengl" if capture.kind == "capture" else "w2c opencv"
    rows = {timestep: row for row, timestep in enumerate(capture.timesteps)}
    columns = {camera: column for column, camera in enumerate(capture.cameras)}
    found = np.isfinite(detected.landmarks).all(-1).any(-1)
    steps = np.argsort(-found.sum(1), kind="stable")[:_MOST_STEPS]
    chosen = sorted(int(step) for step in steps if found[step].sum() >= 2)
    K = np.tile(np.eye(3), (len(chosen), len(columns), 1, 1))
    world_to_camera = np.tile(np.eye(4), (len(chosen), len(columns), 1, 1))
    sizes = np.ones((len(chosen), len(columns), 2))
    place = {step: number for number, step in enumerate(chosen)}
    for view in capture.views:
        if (row := rows[view.timestep]) in place:
            at = (place[row], columns[view.camera])
            K[at], world_to_camera[at], sizes[at] = view.K, view.world_to_camera, (view.width, view.height)
    points = detected.landmarks[chosen].astype(np.float64)
    if scheme is None:
        return check_cameras(points, K, world_to_camera, sizes, read_as=read_as)
    corners = tuple(int(np.flatnonzero(corner == INNER_51)[0]) for corner in EYE_CORNERS)
    return check_cameras(points[:, :, scheme.inner], K, world_to_camera, sizes, (corners[0], corners[1]), read_as)


def check_cameras(
    landmarks: Float[ndarray, "T C N 3"],
    K: ndarray,
    world_to_camera: ndarray,
    sizes: ndarray,
    eye_corners: tuple[int, int] | None = None,
    read_as: FileConvention = "w2c opencv",
) -> CameraReport:
    """Checks cameras by landmarks (x px, y px, confidence; NaN where nothing was found) that are fixed to the face.

    Args:
        K: (C, 3, 3) or, of cameras that move, (T, C, 3, 3), px.
        world_to_camera: (C, 4, 4) or (T, C, 4, 4), OpenCV axes.
        sizes: (C, 2) or (T, C, 2), width and height of the pictures, px.
        eye_corners: which landmarks are the outer eye corners; they say the world's unit.
        read_as: what the file's extrinsics were taken for, so that the conventions named are the file's.
    """
    steps, cameras = landmarks.shape[:2]
    K, world_to_camera, sizes = (
        np.broadcast_to(np.asarray(array, dtype=np.float64), (steps, cameras, *np.shape(array)[-tail:]))
        for array, tail in ((K, 2), (world_to_camera, 2), (sizes, 1))
    )
    views = _Views(landmarks, eye_corners)
    error, eyes = views.error(K, world_to_camera)
    if np.isnan(error):
        return CameraReport(error)
    if error <= _GOOD:
        return CameraReport(error, eye_distance=eyes, unit=_unit(eyes))
    limit = min(_FITS, _BETTER * error)
    fitting: list[tuple[float, float, str]] = []
    for changes in (1, 2):
        if not fitting:
            tried = sorted(_tried(views, K, world_to_camera, sizes, read_as, changes), key=lambda one: one[0])
            fitting = [one for one in tried if one[0] <= limit]
    if not fitting:
        return CameraReport(error, eye_distance=eyes, unit=_unit(eyes))
    # what fits about as well cannot be told apart
    best = fitting[0][0]
    names = tuple(name for value, _, name in fitting if value <= 1.3 * best + 1e-4)
    return CameraReport(error, names[:3], best, fitting[0][1], _unit(fitting[0][1]))


class _Views:
    """Landmarks of some timesteps, as few as are needed, and their errors under cameras."""

    def __init__(self, landmarks: ndarray, eye_corners: tuple[int, int] | None) -> None:
        count = landmarks.shape[2]
        chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).astype(int))
        self._corners = eye_corners
        if eye_corners is not None:
            chosen = np.unique(np.concatenate([chosen, eye_corners]))
            self._corners = (int(np.searchsorted(chosen, eye_corners[0])), int(np.searchsorted(chosen, eye_corners[1])))
        points = np.asarray(landmarks, dtype=np.float64)[:, :, chosen]
        self._usable: ndarray = np.asarray(np.isfinite(points).all(-1))
        self._weights = np.where(self._usable, np.clip(points[..., 2], 0.0, None), 0.0)
        self._usable &= self._weights > 0
        self._pixels = np.where(self._usable[..., None], points[..., :2], 0.0)
        self._size = face_sizes(np.where(self._usable[..., None], points, np.nan))

    def error(self, K: ndarray, world_to_camera: ndarray) -> tuple[float, float]:
        """`CameraReport.error` and `eye_distance` under cameras (T, C, 3, 3) and (T, C, 4, 4)."""
        ratios, behind, eyes = [], [], []
        for step in range(len(self._pixels)):
            try:
                found = triangulate(
                    self._pixels[step], self._weights[step], K[step], world_to_camera[step], _ITERATIONS
                )
            except np.linalg.LinAlgError:  # rays that are all parallel
                continue
            determined = np.isfinite(found.points.sum(axis=1))
            if not determined.any():
                continue
            seen = self._usable[step] & determined[None]
            with np.errstate(all="ignore"):
                projected = project(np.nan_to_num(found.points), K[step], world_to_camera[step])
                distance = np.linalg.norm(projected[..., :2] - self._pixels[step], axis=-1)
            ratios.append((distance / np.maximum(self._size[step], 1e-9)[:, None])[seen])
            behind.append((projected[..., 2] <= 0)[seen])
            if self._corners is not None and determined[list(self._corners)].all():
                first, second = found.points[list(self._corners)]
                eyes.append(float(np.linalg.norm(first - second)))
        if not ratios or not sum(len(values) for values in ratios):
            return float("nan"), float("nan")
        eye_distance = float(np.median(eyes)) if eyes else float("nan")
        if np.concatenate(behind).mean() > 0.05:
            return float("inf"), eye_distance
        return float(np.median(np.concatenate(ratios))), eye_distance


def _tried(
    views: _Views, K: ndarray, world_to_camera: ndarray, sizes: ndarray, read_as: FileConvention, changes: int
) -> Iterator[tuple[float, float, str]]:
    """Error, eye distance and name of each convention of extrinsics or intrinsics (1 change), or of both (2)."""
    for pose_name, poses in _poses(world_to_camera, read_as):
        for K_name, intrinsics in _intrinsics(K, sizes):
            parts = [part for part in (pose_name, K_name) if part]
            if len(parts) == changes:
                error, eyes = views.error(intrinsics, poses)
                if np.isfinite(error):
                    yield error, eyes, " and ".join(parts)


def _poses(world_to_camera: ndarray, read_as: FileConvention) -> Iterator[tuple[str, ndarray]]:
    """What the extrinsics would be, had the file another convention than it was taken for."""
    opengl = _AXES["OpenGL's or Blender's axes (x right, y up, z back)"]
    in_file = world_to_camera if read_as == "w2c opencv" else np.linalg.inv(world_to_camera) @ opengl
    yield "", world_to_camera
    for axes_name, axes in _AXES.items():
        is_opencv, is_opengl = axes_name.startswith("OpenCV"), axes_name.startswith("OpenGL")
        if not (read_as == "w2c opencv" and is_opencv):
            yield f"world-to-camera extrinsics in {axes_name}", axes @ in_file
        if not (read_as == "c2w opengl" and is_opengl):
            yield f"camera-to-world extrinsics in {axes_name}", np.linalg.inv(in_file @ axes)
    centered = in_file.copy()
    centered[..., :3, 3] = -np.einsum("...ij,...j->...i", in_file[..., :3, :3], in_file[..., :3, 3])
    yield "a translation that is the camera's place (and a world-to-camera rotation)", centered
    turned = in_file.copy()
    turned[..., :3, :3] = np.swapaxes(in_file[..., :3, :3], -1, -2)
    yield "a camera-to-world rotation (and a world-to-camera translation)", turned


def _intrinsics(K: ndarray, sizes: ndarray) -> Iterator[tuple[str, ndarray]]:
    """What the intrinsics would be, were they for other pictures than they were taken for."""
    yield "", K
    bottom = K.copy()
    bottom[..., 1, 2] = sizes[..., 1] - K[..., 1, 2]
    yield "cy measured from the bottom", bottom
    for scale in _SCALES:
        text = f"{scale:g} times as large as these" if scale > 1 else f"{1 / scale:g} times smaller than these"
        yield f"intrinsics of pictures {text}", np.diag([1 / scale, 1 / scale, 1.0]) @ K


def _unit(eye_distance: float) -> str | None:
    """The unit in which a face has this distance of its outer eye corners."""
    if not np.isfinite(eye_distance) or eye_distance <= 0:
        return None
    name = min(_UNITS, key=lambda unit: abs(np.log(eye_distance / (_EYES_M * _UNITS[unit]))))
    return name if abs(np.log(eye_distance / (_EYES_M * _UNITS[name]))) < np.log(1.35) else None
