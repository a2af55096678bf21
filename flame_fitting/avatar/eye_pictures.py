"""Pictures of single eyes of a head model, with the places of lids, corners, iris and eyeball: what the network that
looks at eyes (`landmarks.eyes`) learns from."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy import ndarray

from flame_fitting.avatar.evidence_pictures import EvidencePictures, draw_poses, paints_of, posed
from flame_fitting.avatar.head_calibration import detector_input, head_frame, painted_avatar, turned_light
from flame_fitting.avatar.view_planning import head_cameras
from flame_fitting.capture.camera import intrinsics_from_fov, project
from flame_fitting.head.apertures import LID_COLUMNS, find_apertures, gaze_angles
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.eye_network import EyeCrops
from flame_fitting.landmarks.schemes import scheme_named

CANVAS = (136, 96)
"""Width and height of a picture of an eye, px."""
_WIDTHS = (15.0, 54.0)
"""Distance of an eye's corners seen from the front, px."""
_EYE_WIDTH = 0.029
"""Metres, of a usual eye: what pictures' scales are chosen by."""
_IRIS_DEPTH = 0.89
"""Distance of an iris's plane from the middle of the eyeball, over the radius of the ball."""
_COLUMNS = (slice(0, LID_COLUMNS), slice(LID_COLUMNS, 2 * LID_COLUMNS))


def eye_crops(
    head: HeadModel,
    embedding: LandmarkEmbedding,
    config: EvidencePictures,
    progress: Callable[[Sequence], Sequence] = list,
) -> EyeCrops:
    """Both eyes of `config.identities` heads in all their expressions and views; left eyes mirrored."""
    rng = np.random.default_rng([config.seed, 3])
    apertures, frame = find_apertures(head), head_frame(head)
    paints = paints_of(head, embedding, config)
    balls = [head.weights[:, joint].cpu().numpy() > 0.5 for joint in (4, 3)]
    ibug = scheme_named(embedding.scheme).ibug68
    corners_at = ibug[[[36, 39], [45, 42]]]
    images, places, gaps = [], [], []
    for identity, pose in progress(list(draw_poses(head, apertures, config))):
        posed_vertices, eyes_pose = posed(head, pose)
        vertices = posed_vertices[0].numpy().astype(np.float64)
        avatar = painted_avatar(head, vertices, paints[identity % len(paints)])
        points = embedding.points(posed_vertices, head.faces)[0].numpy()
        rims = apertures.points(posed_vertices, head.faces)[0].numpy()
        gap = 1000 * apertures.gaps(posed_vertices, head.faces)[0].numpy()
        gaze = gaze_angles(eyes_pose)[0].numpy().reshape(2, 2)
        wanted = [_wanted(vertices[balls[k]], gaze[k], rims[:, _COLUMNS[k]], points[corners_at[k]]) for k in range(2)]
        fov, lit, light = rng.uniform(12, 30), rng.random() < 0.7, turned_light(np.radians(rng.uniform(-90, 90)))
        aims = rng.uniform(-1, 1, (config.views, 2)) * (config.yaw, config.pitch)
        aims[0] *= 0.3
        cameras = np.repeat(head_cameras(aims, np.eye(4), frame, fov), 2, axis=0)
        K = np.stack([_aimed(camera, wanted[k % 2], fov, rng) for k, camera in enumerate(cameras)])
        # all at once: what light reaches the skin is found once for a call
        drawn = avatar.draw(K, cameras, *CANVAS, "lit" if lit else "unlit", light_rotation=light, outputs=("image",))
        assert drawn.image is not None
        for k, picture in enumerate(detector_input(drawn.image)):
            seen = project(wanted[k % 2], K[k], cameras[k])[:, :2]
            if k % 2:
                picture, seen = picture[:, ::-1], seen * (-1, 1) + (CANVAS[0], 0)
            images.append(np.ascontiguousarray(picture))
            places.append(seen)
            gaps.append(gap[_COLUMNS[k % 2]])
    return EyeCrops(np.array(images), np.array(places, dtype=np.float32), np.array(gaps, dtype=np.float32))


def _wanted(ball: ndarray, gaze: ndarray, rims: ndarray, corners: ndarray) -> ndarray:
    """The (14, 3) points of an eye in the order of `EyeCrops.places`."""
    middle, radius = 0.5 * (ball.min(0) + ball.max(0)), 0.25 * float(np.ptp(ball, axis=0)[:2].sum())
    yaw, pitch = gaze
    direction = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    return np.concatenate([rims.reshape(-1, 3), corners, [middle + _IRIS_DEPTH * radius * direction, middle]])


def _aimed(camera: ndarray, wanted: ndarray, fov: float, rng: np.random.Generator) -> ndarray:
    """K that shows an eye in the middle of a canvas, large or small."""
    K = intrinsics_from_fov(fov, *CANVAS)
    depth = float((camera[:3, :3] @ wanted[-1] + camera[:3, 3])[2])
    K[[0, 1], [0, 1]] = rng.uniform(*_WIDTHS) * depth / _EYE_WIDTH
    corners = project(wanted[-4:-2], K, camera)[:, :2]
    K[:2, 2] += np.array(CANVAS) / 2 - corners.mean(0) + rng.uniform(-0.5, 0.5, 2)
    return K
