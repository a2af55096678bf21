"""View sets in memory, drawn from known meshes and textures by the avatar renderer (not by the fit's own)."""

from dataclasses import replace

import numpy as np
import torch

from flame_fitting.capture.camera import clip_from_world, intrinsics_from_fov, look_at
from flame_fitting.capture.capture import View
from flame_fitting.fit.pictures import Pictures
from flame_fitting.fit.surface import SurfaceView
from flame_fitting.fit.views import ViewSet, stack_rgba
from flame_fitting.head.model import HeadData, HeadModel
from flame_fitting.report.drawing import head_avatar

DISTANCE = 0.9


def around(count: int, height: float = 0.0, span: float = 360.0) -> list[tuple[float, float, float]]:
    """Eyes (m) on a circle around the head, or on an arc of `span` degrees in front of it."""
    turns = np.arange(count) / count if span == 360.0 else np.linspace(-0.5, 0.5, count)
    yaws = np.radians(span) * turns
    return [(float(DISTANCE * np.sin(yaw)), height, float(DISTANCE * np.cos(yaw))) for yaw in yaws]


def draw(head: HeadModel, vertices: np.ndarray, texture: np.ndarray | None, eyes: list, size: int = 192) -> ViewSet:
    """Unlit pictures of vertices (V, 3), reference frame, with a texture (R, R, 3) uint8."""
    views, rendered = _render(head, vertices, texture, eyes, size)
    clip = [clip_from_world(v.K, v.world_to_camera, size, size, 0.3, 2.0) for v in views]
    return ViewSet(
        views=views,
        rgba=stack_rgba(rendered.image, rendered.alpha),
        clip=torch.as_tensor(np.stack(clip), dtype=torch.float32),
        K=np.stack([v.K for v in views]),
        camera=np.stack([v.world_to_camera for v in views]),
        timestep=torch.zeros(len(views), dtype=torch.long),
    )


def over_time(drawn: list[ViewSet]) -> ViewSet:
    """The pictures of timesteps, as many of each, over white."""
    return replace(
        drawn[0],
        views=[view for one in drawn for view in one.views],
        rgba=torch.cat([one.rgba for one in drawn]),
        clip=torch.cat([one.clip for one in drawn]),
        K=np.concatenate([one.K for one in drawn]),
        camera=np.concatenate([one.camera for one in drawn]),
        timestep=torch.arange(len(drawn)).repeat_interleave(len(drawn[0].views)),
        background=torch.ones(3),
    )


def stored(views: ViewSet, limit: int = 10**9) -> Pictures:
    """Views in memory, as a fit is given them."""
    return Pictures(replace(views, rgba=views.rgba[:0]), lambda row: views.rgba[row], limit)


def depth_maps(
    head: HeadModel, vertices: np.ndarray, eyes: list, size: int = 192, world_from_reference: np.ndarray | None = None
) -> list[SurfaceView]:
    """Depth and normals of vertices (V, 3), reference frame, seen by cameras that stand in the world."""
    matrix = np.eye(4) if world_from_reference is None else world_from_reference
    points = vertices @ matrix[:3, :3].T + matrix[:3, 3]
    views, out = _render(head, points, None, eyes, size, matrix)
    return [
        SurfaceView(out.depth[i], out.normal[i], out.image[i], view.K, view.world_to_camera)
        for i, view in enumerate(views)
    ]


def _render(head, vertices, texture, eyes, size, matrix=None):
    from flame_fitting.capture.camera import move_camera

    K = intrinsics_from_fov(18.0, size, size)
    cameras = [look_at(np.array(eye), np.zeros(3), np.array([0.0, 1.0, 0.0])) for eye in eyes]
    if matrix is not None:
        cameras = [move_camera(camera, matrix) for camera in cameras]
    views = [View(0, i, "fit", K, camera, size, size, f"{i}.png") for i, camera in enumerate(cameras)]
    avatar = head_avatar(head, np.asarray(vertices, dtype=np.float64), texture)
    return views, avatar.draw(np.stack([K] * len(views)), np.stack(cameras), size, size)


def smooth_texture(resolution: int = 128) -> np.ndarray:
    """(R, R, 3) uint8 with slow variation in every channel."""
    v, u = np.indices((resolution, resolution)) / resolution
    waves = np.stack([np.sin(9 * u), np.cos(7 * v), np.sin(6 * (u + v))], axis=-1)
    return np.round(255 * (0.5 + 0.3 * waves)).astype(np.uint8)


def plates() -> HeadModel:
    """Two square plates that face +z: a small one of half width 0.03 m, 0.06 m in front of one of 0.08 m.

    The small one has the left half of the texture, the large one the right half. Triangles 0 and 1 are the small one.
    """
    square = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    corners = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    vertices = np.concatenate([0.03 * square + [0, 0, 0.06], 0.08 * square])
    uv = np.concatenate([corners * [0.48, 0.98] + 0.01, corners * [0.48, 0.98] + [0.51, 0.01]])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    count = len(vertices)
    data = HeadData(
        name="plates",
        file_hash="plates",
        v_template=vertices,
        faces=faces,
        shapedirs=np.zeros((count, 3, 1)),
        exprdirs=np.zeros((count, 3, 1)),
        posedirs=np.zeros((count, 3, 36)),
        J_regressor=np.full((5, count), 1 / count),
        parents=[-1, 0, 1, 1, 1],
        weights=np.tile([1.0, 0, 0, 0, 0], (count, 1)),
        uv=uv,
        uv_faces=faces,
        regions={"face": np.arange(4), "scalp": np.arange(4, 8)},
    )
    return HeadModel(data)
