"""An avatar as a browser shows it."""

import io

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.browser_glb import BrowserMesh, browser_glb
from flame_fitting.avatar.interface import Avatar
from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.mesh_avatar import MeshAvatar
from flame_fitting.capture.camera import transform_points

MOST_PIXELS = 2048
"""Larger pictures of textures are made smaller: they go through a network."""
_GREY = (0.6, 0.6, 0.6, 1.0)


def avatar_glb(avatar: Avatar, new_from_world: Float[ndarray, "4 4"], most_pixels: int = MOST_PIXELS) -> bytes | None:
    """A GLB of the avatar moved by a similarity, in its own colours; grey and lit where they show no face.

    None of an avatar that is not made of triangles.
    """
    if not isinstance(avatar, MeshAvatar):
        return None
    colored = avatar.has_color
    return browser_glb([_mesh(part, new_from_world, colored, most_pixels) for part in avatar.parts if len(part.faces)])


def _mesh(part: MeshPart, new_from_world: Float[ndarray, "4 4"], colored: bool, most_pixels: int) -> BrowserMesh:
    vertices = transform_points(new_from_world, part.vertices)
    if not colored:
        # browsers make normals of their own, and corners that are split would show every edge
        welded, index = np.unique(vertices, axis=0, return_inverse=True)
        return BrowserMesh(welded, index.reshape(-1)[part.faces], base_color=_GREY)
    opaque = part.alpha_mode == "opaque"
    return BrowserMesh(
        vertices,
        part.faces,
        part.uv,
        None if part.texture is None or part.uv is None else _picture(part.texture, opaque, most_pixels),
        None if part.vertex_colors is None else part.vertex_colors[:, : 3 if opaque else 4],
        part.base_color,
        # this program's own rule: what is half transparent is there, or it is not
        "opaque" if opaque else "mask",
        part.alpha_cutoff,
        part.wrap,
        unlit=True,
    )


def _picture(texture: ndarray, opaque: bool, most_pixels: int) -> bytes:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(texture[..., :3] if opaque else texture))
    picture.thumbnail((most_pixels, most_pixels))
    stream = io.BytesIO()
    if opaque:
        picture.save(stream, format="JPEG", quality=90)
    else:
        picture.save(stream, format="PNG")
    return stream.getvalue()


def width_of(avatar: Avatar, new_from_world: Float[ndarray, "4 4"]) -> float:
    """Its extent along the new frame's x."""
    across = transform_points(new_from_world, avatar.points)[:, 0]
    return float(across.max() - across.min())
