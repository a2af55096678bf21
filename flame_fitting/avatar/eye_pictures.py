"""Pictures of the eyes of a head model, with the places of lids, corners, iris and eyeball and the gaze: what the
network that looks at eyes (`landmarks.eye_network`) learns from.

Other head models have other eyes, so many heads are varied beyond what the model can do: eyeballs moved, larger or
smaller, other irises, heads of other proportions, plain paints with and without brows, lids and pupils.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.evidence_pictures import EvidencePictures, HeadPose, draw_poses, posed, shown_heads
from flame_fitting.avatar.head_calibration import (
    detector_input,
    head_frame,
    painted_avatar,
    painted_colors,
    turned_light,
)
from flame_fitting.avatar.head_paints import drawn_paints
from flame_fitting.avatar.view_planning import head_cameras
from flame_fitting.capture.camera import intrinsics_from_fov, project
from flame_fitting.files import atomic_write, read_npz
from flame_fitting.head.apertures import LID_COLUMNS, Apertures, find_apertures, gaze_angles
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.eye_network import EyeNetwork, EyeViews, head_turn
from flame_fitting.landmarks.eyes import corners_of, frame_of
from flame_fitting.landmarks.schemes import scheme_named

CANVAS = (136, 96)
"""Width and height of a picture of an eye, px."""
_WIDTHS = (16.0, 56.0)
"""Distance of an eye's corners seen from the front, px."""
_EYE_WIDTH = 0.029
"""Metres, of a usual eye: what pictures' scales are chosen by."""
_IRIS_DEPTH = 0.89
"""Distance of an iris's plane from the middle of the eyeball, over the radius of the ball."""
_COLUMNS = (slice(0, LID_COLUMNS), slice(LID_COLUMNS, 2 * LID_COLUMNS))
_JOINTS = (4, 3)
"""Of the right and of the left eyeball."""
_VARIED = 0.6
"""Share of the heads that are varied beyond the model."""
_BALL_SHIFT = (0.0004, 0.0005, 0.0005)
"""Standard deviations of how far eyeballs are moved (m): about as far again as identities of one model differ."""


@dataclass(eq=False)
class EyeErrors:
    """What a detector is wrong by on N heads: so wrong are the corners that the network is shown eyes with."""

    turn: Float[ndarray, "N 2"]
    """Yaw and pitch from which the camera looks at the head, rad."""
    turn_error: Float[ndarray, "N 2"]
    """Of `eye_network.head_turn` by the detector's points."""
    corners: Float[ndarray, "N 2 2 2"]
    """Of the outer and inner corner of the right and of the left eye: along and up, in distances of the true ones."""

    def mirrored(self) -> "EyeErrors":
        """Of the mirrored heads."""
        flip = np.array([-1.0, 1.0])
        return EyeErrors(self.turn * flip, self.turn_error * flip, self.corners[:, ::-1])

    def save(self, path: Path) -> None:
        """Writes an .npz file."""
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, **self.__dict__)

    @classmethod
    def load(cls, path: Path) -> "EyeErrors":
        """Reads what `save` wrote."""
        return cls(**read_npz(path, "Make it again with: python scripts/train_eyes.py"))


def eye_errors(
    head: HeadModel,
    detector: LandmarkDetector,
    embedding: LandmarkEmbedding,
    network: EyeNetwork,
    config: EvidencePictures,
    progress: Callable[[Sequence], Iterable] = list,
) -> EyeErrors:
    """Shows heads to the detector. Of the network only `set_head` must have been called."""
    turns, turn_errors, corner_errors = [], [], []
    for shown in shown_heads(head, detector, embedding, config, progress):
        vertices = shown.vertices[0].numpy().astype(np.float64)
        middle = np.mean([_ball(vertices, head, joint).mean(0) for joint in _JOINTS], axis=0)
        turn = _turn_of(shown.camera[None], middle)[0]
        points = embedding.points(shown.vertices, head.faces)[0].numpy().astype(np.float64)
        true, seen = (corners_of(x) for x in (project(points, shown.K, shown.camera)[:, :2], shown.landmarks[:, :2]))
        turns.append(turn)
        turn_errors.append(head_turn(network, shown.landmarks[:, :2]) - turn)
        corner_errors.append(
            [(seen[side] - true[side]) @ np.linalg.inv(frame_of(true[side], left=side == 1)[1]).T for side in range(2)]
        )
    return EyeErrors(np.array(turns), np.array(turn_errors), np.array(corner_errors))


def eye_views(
    head: HeadModel,
    embedding: LandmarkEmbedding,
    config: EvidencePictures,
    progress: Callable[[Sequence], Iterable] = list,
) -> EyeViews:
    """Both eyes of `config.identities` heads in all their expressions and views."""
    rng = np.random.default_rng([config.seed, 3])
    apertures, frame = find_apertures(head), head_frame(head)
    paints = _paints(head, embedding, config, np.random.default_rng([config.seed, 6]))
    parts: list[EyeViews] = []
    for _, pose in progress(list(draw_poses(head, apertures, config))):
        varied = rng.random() < _VARIED
        vertices = posed(head, pose)[0][0].numpy().astype(np.float64)
        scale = np.exp(rng.normal(0, 0.03, 3)) if varied else np.ones(3)
        vertices = scale * vertices
        radii = [
            _vary_ball(vertices, head.weights[:, joint].numpy() > 0.5, pose, side, scale, rng if varied else None)
            for side, joint in enumerate(_JOINTS)
        ]
        avatar = painted_avatar(head, vertices, paints[rng.integers(len(paints))])
        eyes = _Eyes.of(head, embedding, apertures, vertices, pose, radii)
        fov, lit, light = rng.uniform(12, 30), rng.random() < 0.7, turned_light(np.radians(rng.uniform(-90, 90)))
        aims = rng.uniform(-1, 1, (config.views, 2)) * (config.yaw, config.pitch)
        aims[::3] *= 0.3
        cameras = head_cameras(aims, np.eye(4), frame, fov, rng.uniform(0.65, 1.0))
        K = np.concatenate([_aimed(camera, eyes.places, fov, rng) for camera in cameras])
        # all at once: what light reaches the skin is found once for a call
        drawn = avatar.draw(
            K, np.repeat(cameras, 2, axis=0), *CANVAS, "lit" if lit else "unlit", light_rotation=light,
            outputs=("image",),
        )  # fmt: skip
        assert drawn.image is not None
        parts.append(eyes.views(detector_input(drawn.image), K, cameras))
    return EyeViews(*(np.concatenate([getattr(part, name) for part in parts]) for name in EyeViews.__annotations__))


@dataclass(eq=False)
class _Eyes:
    """Right and left eye of one head."""

    places: Float[ndarray, "2 14 3"]
    gaps: Float[ndarray, "2 5"]
    gaze: Float[ndarray, "2 2"]
    ball: Float[ndarray, "2 3"]

    @classmethod
    def of(
        cls,
        head: HeadModel,
        embedding: LandmarkEmbedding,
        apertures: Apertures,
        vertices: ndarray,
        pose: HeadPose,
        radii: Sequence[float],
    ) -> "_Eyes":
        ibug = scheme_named(embedding.scheme).ibug68
        on_head = torch.as_tensor(vertices, dtype=head.v_template.dtype)[None]
        corners = embedding.points(on_head, head.faces)[0].numpy()[ibug[[[36, 39], [45, 42]]]].astype(np.float64)
        rims = apertures.points(on_head, head.faces)[0].numpy().astype(np.float64)
        gaps = 1000 * apertures.gaps(on_head, head.faces)[0].numpy()
        gaze = gaze_angles(torch.as_tensor(pose.eyes_pose)[None])[0].numpy().reshape(2, 2)
        places = []
        for side, joint in enumerate(_JOINTS):
            middle = _ball(vertices, head, joint).mean(0)
            iris = middle + _IRIS_DEPTH * radii[side] * _direction(*gaze[side])
            places.append(np.concatenate([rims[:, _COLUMNS[side]].reshape(-1, 3), corners[side], [iris, middle]]))
        mirror = np.array([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
        away = 1000 * (np.stack([each[-1] for each in places]) - corners.mean(1)) * mirror
        # the subject's right is -x: its outer side lies at negative yaw
        return cls(np.stack(places), gaps[: 2 * LID_COLUMNS].reshape(2, -1), gaze * ((-1, 1), (1, 1)), away)

    def views(self, pictures: ndarray, K: ndarray, cameras: ndarray) -> EyeViews:
        """Of pictures of the right and the left eye by each camera."""
        count = len(cameras)
        images, places = pictures.reshape(count, 2, *pictures.shape[1:]).copy(), np.empty((count, 2, 14, 2))
        images[:, 1] = images[:, 1, :, ::-1]
        for view, camera in enumerate(cameras):
            for side in range(2):
                places[view, side] = project(self.places[side], K[2 * view + side], camera)[:, :2]
        places[:, 1] = places[:, 1] * (-1, 1) + (CANVAS[0], 0)
        turn = _turn_of(cameras, self.places[:, -1].mean(0))

        def same(each: ndarray) -> ndarray:
            return np.repeat(each[None], count, axis=0).astype(np.float32)

        return EyeViews(
            images,
            places.astype(np.float32),
            same(self.gaps),
            same(self.gaze),
            same(self.ball),
            turn.astype(np.float32),
        )


def _ball(vertices: Float[ndarray, "V 3"], head: HeadModel, joint: int) -> Float[ndarray, "2 3"]:
    """Smallest and largest coordinates of an eyeball."""
    ball = vertices[head.weights[:, joint].numpy() > 0.5]
    return np.stack([ball.min(0), ball.max(0)])


def _direction(yaw: float, pitch: float) -> Float[ndarray, "3"]:
    return np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])


def _turn_of(cameras: Float[ndarray, "B 4 4"], middle: Float[ndarray, "3"]) -> Float[ndarray, "B 2"]:
    """Yaw and pitch (rad) from which cameras look at a head whose eyes are about `middle`."""
    x, y, z = (-np.einsum("bji,bj->bi", cameras[:, :3, :3], cameras[:, :3, 3]) - middle).T
    return np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], axis=1)


def _vary_ball(
    vertices: ndarray, ball: ndarray, pose: HeadPose, side: int, scale: ndarray, rng: np.random.Generator | None
) -> float:
    """Moves an eyeball and its iris in place, where there is an `rng`; its radius (m)."""
    own = vertices[ball] / scale
    middle = 0.5 * (own.min(0) + own.max(0))
    radius = 0.25 * float(np.ptp(own, axis=0)[:2].sum())
    if rng is None:
        return radius
    # the same on both sides, but for a little
    both = np.random.default_rng(int(1e6 * abs(pose.shape[0]) + 1e3 * abs(pose.shape[1])))
    size = float(np.exp(both.normal(0, 0.04) + rng.normal(0, 0.005)))
    shift = (both.normal(0, 1, 3) * (1 if side == 0 else -1, 1, 1) + rng.normal(0, 0.2, 3)) * _BALL_SHIFT
    # its front stays about where it was
    shift[2] -= (size - 1) * radius
    away = own - middle
    yaw, pitch = gaze_angles(torch.as_tensor(pose.eyes_pose)[None])[0].numpy().reshape(2, 2)[side]
    away = _wider(away, _direction(yaw, pitch), float(np.exp(both.normal(0, 0.08))))
    vertices[ball] = scale * middle + shift + size * away
    return size * radius


def _wider(away: Float[ndarray, "N 3"], axis: Float[ndarray, "3"], by: float) -> Float[ndarray, "N 3"]:
    """Points of a ball about its middle, with the angles near its axis multiplied."""
    length = np.linalg.norm(away, axis=1, keepdims=True)
    along = (away @ axis)[:, None]
    across = away - along * axis
    angle = np.arctan2(np.linalg.norm(across, axis=1, keepdims=True), along)
    share = np.clip((np.radians(120) - angle) / np.radians(75), 0, 1)
    turned = angle * (1 + (by - 1) * share)
    side = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    return np.asarray(length * (np.cos(turned) * axis + np.sin(turned) * side))


def _paints(
    head: HeadModel, embedding: LandmarkEmbedding, config: EvidencePictures, rng: np.random.Generator
) -> list[ndarray]:
    """Textures (S, S, 3) and vertex colours (V, 3)."""
    textures = [] if head.texture is None or not head.has_uv else drawn_paints(head, None, config.paints, config.seed)
    painted = painted_colors(head, embedding)
    return textures + [_plain(head, painted, rng) for _ in range(config.plain_paints)]


def _plain(head: HeadModel, painted: Float[ndarray, "V 3"], rng: np.random.Generator) -> Float[ndarray, "V 3"]:
    """Colours of vertices, with and without brows, lids and pupils."""
    colors = painted.copy()
    weights, template = head.weights.cpu().numpy(), head.v_template.detach().cpu().numpy().astype(np.float64)
    usual = np.median(colors, axis=0)
    # brows, lids and whatever else is painted on the skin, each stronger or weaker
    skin = weights[:, list(_JOINTS)].max(1) <= 0.5
    strength = rng.choice([0.0, 1.0, rng.uniform(0, 1.2)], p=[0.25, 0.4, 0.35])
    colors[skin] = usual + strength * (colors[skin] - usual)
    colors[skin] *= rng.uniform(0.25, 1.15) * rng.uniform(0.9, 1.1, 3)
    colors[skin] *= 1 + rng.uniform(0, 0.03) * rng.standard_normal((int(skin.sum()), 1))
    white = np.array([0.93, 0.92, 0.90]) * rng.uniform(0.75, 1.05) * rng.uniform(0.95, 1.02, 3)
    iris = np.array([0.30, 0.20, 0.13]) * rng.uniform(0.4, 2.2) * rng.uniform(0.7, 1.4, 3)
    wide, pupil = np.radians(rng.uniform(22, 30)), np.radians(rng.uniform(7, 14)) * (rng.random() < 0.5)
    for joint in _JOINTS:
        ball = np.flatnonzero(weights[:, joint] > 0.5)
        away = template[ball] - 0.5 * (template[ball].min(0) + template[ball].max(0))
        angle = np.arccos(np.clip(away[:, 2] / np.linalg.norm(away, axis=1), -1, 1))
        colors[ball] = np.where((angle < wide)[:, None], iris, white)
        colors[ball[angle < pupil]] = 0.04
    return np.clip(colors, 0, 1)


def _aimed(camera: ndarray, places: Float[ndarray, "2 14 3"], fov: float, rng: np.random.Generator) -> ndarray:
    """(2, 3, 3) K that show the right and the left eye in the middle of a canvas, both as large as the picture has
    them."""
    depth = float((camera[:3, :3] @ places[:, -1].mean(0) + camera[:3, 3])[2])
    width = rng.uniform(*_WIDTHS)
    out = []
    for one in places:
        K = intrinsics_from_fov(fov, *CANVAS)
        K[[0, 1], [0, 1]] = width * depth / _EYE_WIDTH
        corners = project(one[-4:-2], K, camera)[:, :2]
        K[:2, 2] += np.array(CANVAS) / 2 - corners.mean(0) + rng.uniform(-0.5, 0.5, 2)
        out.append(K)
    return np.stack(out)
