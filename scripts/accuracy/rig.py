"""Captures of VHAP's kind: a ring of calibrated cameras, all 68 landmarks, a head under spherical-harmonic light."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

if TYPE_CHECKING:
    from flame_fitting.avatar.interface import Avatar
    from flame_fitting.avatar.view_planning import HeadFrame, PlannedView
    from flame_fitting.capture.capture import Capture
    from flame_fitting.head.embedding import LandmarkEmbedding
    from flame_fitting.head.model import HeadModel

    from .cases import Case, Subject

PITCHES = (0.0, 20.0, 0.0, -20.0)
"""Of the cameras, degrees, in turn around the ring."""
LANDMARK_VIEWS = 11 / 16
"""Share of the fit views that show landmarks, those nearest to the front."""
TINT = 0.02
"""Relative differences of the light's colour channels."""


def plain_colors(head: "HeadModel") -> Float[ndarray, "V 3"]:
    """Colours by region as in FLAME's own neutral picture: skin on the scalp too, no brows."""
    colors = np.tile((0.86, 0.67, 0.57), (head.n_vertices, 1))
    parts = (("hair", (0.80, 0.62, 0.53)), ("lips_tight", (0.68, 0.40, 0.37)), ("sclerae", (0.78, 0.75, 0.73)))
    for name, color in (*parts, ("irises", (0.36, 0.28, 0.22))):
        colors[head.region_mask(name).numpy()] = color
    return colors


def ring_views(
    frame: Float[ndarray, "4 4"], count: int, heldout: int, size: int, fov: float, aim: "HeadFrame"
) -> "list[PlannedView]":
    """`count` fit views at equal angles all around, at the pitches in turn, and held-out views between them."""
    import dataclasses

    from flame_fitting.avatar.view_planning import head_cameras, heldout_angles, plan_views

    yaws = 360.0 * np.arange(count) / count
    fit = np.stack([(yaws + 180.0) % 360.0 - 180.0, np.resize(PITCHES, count)], axis=1)
    angles = np.concatenate([fit, heldout_angles(heldout, fit)])
    planned = [view for view in plan_views(frame, count, heldout, size, fov, aim) if view.role != "landmark"]
    return [
        dataclasses.replace(view, world_to_camera=camera, yaw=float(yaw), pitch=float(pitch))
        for view, camera, (yaw, pitch) in zip(planned, head_cameras(angles, frame, aim, fov), angles, strict=True)
    ]


def whole_landmarks(
    case: "Case", capture: "Capture", subject: "Subject", embedding: "LandmarkEmbedding"
) -> Float[ndarray, "1 C N 3"]:
    """Projections of all 68 points of the truth, with noise, into the fit views nearest to the front."""
    from flame_fitting.capture.camera import project
    from flame_fitting.landmarks.schemes import scheme_named

    from .cases import true_landmarks

    index = scheme_named(embedding.scheme).ibug68
    points = true_landmarks(subject.head, embedding, subject.demo.vertices_world)[index]
    frame, views = subject.demo.head_from_world, capture.views_of("fit")
    eyes = np.stack([np.linalg.inv(view.world_to_camera)[:3, 3] for view in views]) @ frame[:3, :3].T + frame[:3, 3]
    frontal = np.argsort(-eyes[:, 2] / np.linalg.norm(eyes, axis=1))[: round(LANDMARK_VIEWS * len(views))]
    out = np.full((1, len(capture.cameras), len(embedding.face_index), 3), np.nan, dtype=np.float32)
    for view in (views[i] for i in frontal):
        noise = np.random.default_rng([case.seed, 23, view.camera]).standard_normal((len(index), 2))
        pixels = (
            project(points, view.K, view.world_to_camera)[:, :2] + noise * case.landmark_noise_px * view.height / 512
        )
        out[0, capture.cameras.index(view.camera), index] = np.concatenate([pixels, np.ones((len(index), 1))], axis=1)
    return out


def draw_lights(rng: np.random.Generator) -> Float[ndarray, "9 3"]:
    """Spherical-harmonic coefficients of a nearly white light in head space, from above and one side, at most 1."""
    import torch

    from flame_fitting.render.shading import ambient_light, sh_basis

    lights = 0.7 * ambient_light().double().numpy()
    direction = np.array([rng.uniform(-0.5, 0.5), 0.5, 0.7])
    lights[1:4] += (0.25 * direction / np.linalg.norm(direction))[:, None]
    lights[4:] += 0.04 * rng.standard_normal((5, 1))
    lights *= 1 + TINT * rng.standard_normal((1, 3))
    normals = rng.standard_normal((4096, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return lights / float((sh_basis(torch.as_tensor(normals)).numpy() @ lights).max())


def lit_picture(
    avatar: "Avatar",
    view: "PlannedView",
    lights: Float[ndarray, "9 3"],
    head_from_world: Float[ndarray, "4 4"],
    background: tuple[float, float, float],
) -> tuple[Float[ndarray, "3 H W"], Float[ndarray, "H W"]]:
    """Base colour times light, both sRGB values as VHAP takes them, and alpha; four samples a pixel."""
    import torch

    from flame_fitting.render.shading import sh_shading

    K = view.K.copy()
    K[:2] *= 2
    cameras = (K[None], view.world_to_camera[None], 2 * view.width, 2 * view.height)
    drawn = avatar.draw(*cameras, "unlit", background, supersample=1, outputs=("image", "alpha", "normal"))
    assert drawn.image is not None and drawn.alpha is not None and drawn.normal is not None
    turn = head_from_world[:3, :3] / np.cbrt(np.linalg.det(head_from_world[:3, :3]))
    normals = torch.as_tensor(drawn.normal[0].astype(np.float64) @ turn.T)
    shading = sh_shading(normals, torch.as_tensor(lights)).numpy().transpose(2, 0, 1)
    image = np.clip(np.where(drawn.alpha[0] > 0, drawn.image[0] * shading, drawn.image[0]), 0, 1)

    def halved(values: ndarray) -> ndarray:
        height, width = values.shape[-2:]
        return values.reshape(*values.shape[:-2], height // 2, 2, width // 2, 2).mean((-3, -1)).astype(np.float32)

    return halved(image), halved(drawn.alpha[0])
