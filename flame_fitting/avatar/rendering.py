"""Pictures of a mesh from known cameras: image, alpha, depth and normals, on the CPU.

Everything is drawn from both sides: inverted or mixed winding must not leave holes in a target. Colours are filtered
and averaged as sRGB values, as the texture of a fit is.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from flame_fitting.avatar.interface import OUTPUTS, SHADINGS, VIEWS_AT_ONCE, RenderedViews
from flame_fitting.avatar.lights import AMBIENT, LIGHT_COLOR, lights_in_world, occlusion_left
from flame_fitting.avatar.render_scene import RenderScene, ambient_occlusion
from flame_fitting.avatar.shading_kernels import geometry, shade


def draw_scene(
    scene: RenderScene,
    K: Float[np.ndarray, "B 3 3"],
    world_to_camera: Float[np.ndarray, "B 4 4"],
    width: int,
    height: int,
    shading: str,
    background: Iterable[float | int],
    supersample: int,
    light_rotation: Float[np.ndarray, "3 3"] | None,
    outputs: Iterable[str],
) -> RenderedViews:
    """Draws the scene from B cameras; see `interface.Avatar.draw`."""
    if shading not in SHADINGS:
        raise ValueError(f"shading {shading!r} is not one of {SHADINGS}")
    wanted = set(outputs)
    count = len(K)
    views = RenderedViews()
    if "image" in wanted or "alpha" in wanted:
        views.image = np.empty((count, 3, height, width), dtype=np.float32)
        views.alpha = np.empty((count, height, width), dtype=np.float32)
    if "depth" in wanted or "normal" in wanted:
        views.depth = np.empty((count, height, width), dtype=np.float32)
        views.normal = np.empty((count, height, width, 3), dtype=np.float32)
    occlusion = np.ones(len(scene.vertices))
    if shading != "unlit" and views.image is not None:
        occlusion = occlusion_left(ambient_occlusion(scene))
    lights = lights_in_world(world_to_camera, light_rotation)
    color = np.array([float(value) for value in background])
    for first in range(0, count, VIEWS_AT_ONCE):
        chunk = slice(first, min(first + VIEWS_AT_ONCE, count))
        cameras = np.ascontiguousarray(K[chunk], dtype=np.float64), np.asarray(world_to_camera[chunk], dtype=np.float64)
        eyes = np.linalg.inv(cameras[1])[:, :3, 3].copy()
        if views.image is not None and views.alpha is not None:
            _draw(
                scene,
                cameras,
                eyes,
                supersample,
                occlusion,
                lights[chunk],
                SHADINGS.index(shading),
                color,
                views.image[chunk],
                views.alpha[chunk],
            )
        if views.depth is not None and views.normal is not None:
            points = scene.project(*cameras)
            inverse, winner = scene.rasterize(points, width, height)
            geometry(
                points,
                scene.vertices,
                scene.normals,
                scene.faces,
                inverse,
                winner,
                eyes,
                views.depth[chunk],
                views.normal[chunk],
            )
    for name in OUTPUTS:
        if name not in wanted:
            setattr(views, name, None)
    return views


def _draw(
    scene: RenderScene,
    cameras: tuple[np.ndarray, np.ndarray],
    eyes: np.ndarray,
    supersample: int,
    occlusion: np.ndarray,
    lights: np.ndarray,
    mode: int,
    background: np.ndarray,
    image: np.ndarray,
    alpha: np.ndarray,
) -> None:
    height, width = alpha.shape[1:]
    points = scene.project(*cameras, scale=float(supersample))
    _, winner = scene.rasterize(points, supersample * width, supersample * height)
    shade(
        points,
        scene.vertices,
        scene.normals,
        occlusion,
        scene.faces,
        scene.face_part,
        scene.part_table,
        scene.part_factor,
        scene.uv,
        scene.vertex_colors,
        scene.texels,
        winner,
        supersample,
        eyes,
        lights,
        LIGHT_COLOR,
        AMBIENT,
        mode,
        background,
        image,
        alpha,
    )
