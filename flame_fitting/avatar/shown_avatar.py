"""An avatar as a browser shows it."""

import io

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from flame_fitting.avatar.browser_glb import BrowserMesh, browser_glb
from flame_fitting.avatar.interface import Avatar
from flame_fitting.avatar.mesh import MeshPart
from flame_fitting.avatar.mesh_avatar import MeshAvatar
from flame_fitting.avatar.tone_mapping import SHOWN_WHITE, shown_colors, shown_picture
from flame_fitting.capture.camera import transform_points
from flame_fitting.capture.color_correction import linear_to_srgb, srgb_to_linear

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
    base, colors, picture = part.base_color, part.vertex_colors, None
    if part.texture is not None and part.uv is not None:
        picture, base = _picture(part.texture, opaque, most_pixels, base[:3]), (*SHOWN_WHITE[:3], base[3])
        colors = None if colors is None else colors[:, : 3 if opaque else 4]
    else:
        own = np.ones((len(vertices), 4)) if colors is None else colors[:, :4]
        together = linear_to_srgb(srgb_to_linear(own[:, :3].astype(np.float64)) * srgb_to_linear(np.array(base[:3])))
        colors, base = np.concatenate([shown_colors(together), own[:, 3:]], axis=1), (1.0, 1.0, 1.0, base[3])
        colors = colors[:, :3] if opaque else colors
    return BrowserMesh(
        vertices,
        part.faces,
        part.uv,
        picture,
        colors,
        base,
        # this program's own rule: what is half transparent is there, or it is not
        "opaque" if opaque else "mask",
        part.alpha_cutoff,
        part.wrap,
        unlit=True,
    )


def _picture(texture: ndarray, opaque: bool, most_pixels: int, tint: tuple[float, float, float]) -> bytes:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(texture[..., :3] if opaque else texture))
    picture.thumbnail((most_pixels, most_pixels))
    picture = Image.fromarray(shown_picture(np.asarray(picture), tint))
    stream = io.BytesIO()
    if opaque:
        picture.save(stream, format="JPEG", quality=95)
    else:
        picture.save(stream, format="PNG")
    return stream.getvalue()


def width_of(avatar: Avatar, new_from_world: Float[ndarray, "4 4"]) -> float:
    """Its extent along the new frame's x."""
    across = transform_points(new_from_world, avatar.points)[:, 0]
    return float(across.max() - across.min())
