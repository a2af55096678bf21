"""Pictures of a fitted head from a capture's cameras, drawn as the avatar itself is drawn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.interface import Avatar
from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.mesh_avatar import MeshAvatar
from flame_fitting.avatar.unit_frame import in_unit_frame
from flame_fitting.capture.camera import move_camera
from flame_fitting.capture.capture import Capture, View
from flame_fitting.capture.pictures import replace_background
from flame_fitting.fit.result import FitResult
from flame_fitting.head.model import HeadModel
from flame_fitting.head.seams import split_at_seams
from flame_fitting.maths.normals import vertex_normals

_CHUNK = 8


@dataclass(eq=False)
class DrawnFit:
    """The fitted head in B views of one size."""

    image: Float[ndarray, "B 3 H W"]
    """sRGB 0..1 over the capture's background."""
    alpha: Float[ndarray, "B H W"]
    normal: Float[ndarray, "B H W 3"] | None = None
    """World; None where it was not asked for."""


def head_avatar(
    head: HeadModel,
    vertices: Float[ndarray, "V 3"],
    texture: ndarray | None = None,
    vertex_colors: Float[ndarray, "V 3"] | None = None,
) -> MeshAvatar:
    """A posed head as an avatar; mid grey without a texture and colours."""
    from pathlib import Path

    faces = head.faces.cpu().numpy()
    if texture is not None and head.has_uv:
        split = split_at_seams(head)
        opaque = np.concatenate([texture, np.full((*texture.shape[:2], 1), 255, dtype=np.uint8)], axis=2)
        part = MeshPart(
            vertices=vertices[split.vertex],
            faces=split.faces,
            normals=vertex_normals(vertices, faces)[split.vertex],
            uv=split.uv,
            texture=opaque,
            wrap=("clamp", "clamp"),
        )
    else:
        part = MeshPart(vertices=vertices, faces=faces, normals=vertex_normals(vertices, faces))
        if vertex_colors is None:
            part.base_color = (0.6, 0.6, 0.6, 1.0)
        else:
            part.vertex_colors = np.concatenate([vertex_colors, np.ones((len(vertex_colors), 1))], axis=1)
    return MeshAvatar(parts=[part], path=Path("memory"), file_hash="", format="memory")


def draw_fit(
    fit: FitResult,
    head: HeadModel,
    capture: Capture,
    views: list[View],
    vertices: Float[ndarray, "T V 3"] | None = None,
    geometry: bool = True,
) -> list[DrawnFit]:
    """The fitted head in each of `views`, one result per view (B = 1), in their order. See `drawn_fits`."""
    posed = None if vertices is None else (lambda row: vertices[min(row, len(vertices) - 1)])
    drawn = {view.key: picture for view, picture in drawn_fits(fit, head, capture, views, posed, geometry)}
    return [drawn[view.key] for view in views]


def drawn_fits(
    fit: FitResult,
    head: HeadModel,
    capture: Capture,
    views: list[View],
    posed: Callable[[int], Float[ndarray, "V 3"]] | None = None,
    geometry: bool = True,
) -> Iterator[tuple[View, DrawnFit]]:
    """Views with the fitted head in them, timestep by timestep; no more than a few pictures are held at once.

    `posed` gives the vertices of a row in the avatar's coordinates; None takes the fit's own. Without `geometry`,
    normals are left out.
    """
    steps = {timestep: row for row, timestep in enumerate(capture.timesteps)}
    background = np.asarray(capture.background_color, dtype=np.float32)
    turn = fit.head_from_world[:3, :3] / np.cbrt(np.linalg.det(fit.head_from_world[:3, :3]))
    of_row: dict[int, list[View]] = {}
    for view in views:
        of_row.setdefault(steps[view.timestep], []).append(view)
    for row, mine in sorted(of_row.items()):
        vertices = fit.vertices_world(head, [row])[0] if posed is None else posed(row)
        avatar, world_from_unit = in_unit_frame(head_avatar(head, vertices, fit.texture))
        for size in sorted({(view.width, view.height) for view in mine}):
            same = [view for view in mine if (view.width, view.height) == size]
            for start in range(0, len(same), _CHUNK):
                chunk = same[start : start + _CHUNK]
                cameras = np.stack(
                    [move_camera(view.world_to_camera, np.linalg.inv(world_from_unit)) for view in chunk]
                )
                K = np.stack([view.K for view in chunk])
                result = _draw(avatar, K, cameras, size, background, fit, turn, geometry)
                for i, view in enumerate(chunk):
                    image, alpha, normal = (None if part is None else part[i : i + 1] for part in result)
                    assert image is not None and alpha is not None
                    yield view, DrawnFit(image, alpha, normal)


class Cameras(NamedTuple):
    """B cameras in head space, whose pictures have one size."""

    K: Float[ndarray, "B 3 3"]
    head_to_camera: Float[ndarray, "B 4 4"]
    size: tuple[int, int]
    """Width and height."""


def draw_in_head_space(
    fit: FitResult, head: HeadModel, vertices: Float[ndarray, "V 3"], cameras: Sequence[Cameras]
) -> list[Float[ndarray, "B 3 H W"]]:
    """Any vertices (head space, metres) with the fit's texture and light, before white; sRGB 0..1.

    Without a texture grey, lit from the front.
    """
    facing = np.clip(vertex_normals(vertices, head.faces.cpu().numpy())[:, 2:], 0, 1)
    clay = np.repeat(0.3 + 0.4 * facing, 3, axis=1)
    avatar, head_from_unit = in_unit_frame(head_avatar(head, vertices, fit.texture, clay))
    unit_from_head, white = np.linalg.inv(head_from_unit), np.ones(3, dtype=np.float32)
    pictures = []
    for K, poses, size in cameras:
        seen = np.stack([move_camera(pose, unit_from_head) for pose in poses])
        pictures.append(_draw(avatar, K, seen, size, white, fit, np.eye(3), geometry=False)[0])
    return pictures


def _draw(
    avatar: Avatar,
    K: ndarray,
    cameras: ndarray,
    size: tuple[int, int],
    background: ndarray,
    fit: FitResult,
    head_from_avatar: Float[ndarray, "3 3"],
    geometry: bool,
) -> tuple:
    # black behind, so that light scales the head alone
    outputs = ("image", "alpha", "normal") if geometry or fit.lights is not None else ("image", "alpha")
    out = avatar.draw(K, cameras, *size, "unlit", (0.0, 0.0, 0.0), outputs=outputs)
    assert out.image is not None and out.alpha is not None
    image = out.image
    if fit.lights is not None and out.normal is not None:
        image = image * shading(out.normal @ head_from_avatar.T, fit.lights).transpose(0, 3, 1, 2)
    image, _ = replace_background(image, out.alpha, (0.0, 0.0, 0.0), background)
    return image.astype(np.float32), out.alpha, out.normal


def shading(normals: Float[ndarray, "*B 3"], lights: Float[ndarray, "9 3"]) -> Float[ndarray, "*B 3"]:
    """Diffuse light at normals in head space; 1 where there is no normal."""
    import torch

    from flame_fitting.render.shading import sh_basis

    flat = torch.as_tensor(np.ascontiguousarray(normals, dtype=np.float32)).reshape(-1, 3)
    light = (sh_basis(flat) @ torch.as_tensor(lights, dtype=torch.float32)).numpy().reshape(normals.shape)
    return np.where(np.abs(normals).sum(-1, keepdims=True) > 0, np.maximum(light, 0), 1.0)
