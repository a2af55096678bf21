"""A texture of a fit from all pictures of its capture."""

from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from flame_fitting.avatar.lights import CLAY_GREY
from flame_fitting.capture.capture import Capture
from flame_fitting.capture.pictures import to_uint8
from flame_fitting.export.baking import kernels
from flame_fitting.export.baking.blending import Blend, blend
from flame_fitting.export.baking.cover import gaps_of_faces, other_colors, shown
from flame_fitting.export.baking.shots import Shot, chosen_views, shots
from flame_fitting.fit.filling import filled
from flame_fitting.fit.result import FitResult
from flame_fitting.fit.texture import texel_map
from flame_fitting.fit.tissues import NUMBER, tissue_of_faces
from flame_fitting.head.model import HeadModel
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.render.gutter import fill_gutter
from flame_fitting.render.texturing import TexelMap

BakeKind = Literal["albedo", "shaded"]
"""Colours without the light that the capture was lit by, or as the pictures show them."""
_COARSE = 512
"""Edge (texels) of the texture on which visibility and weights are found."""

_ISLAND = 6e-4
"""Share of the texture below which skin that is seen by itself is not used."""


def baked_texture(
    fit: FitResult, head: HeadModel, capture: Capture, size: int, kind: BakeKind = "albedo"
) -> UInt8[ndarray, "size size 3"]:
    """sRGB for the head's own texture coordinates, row 0 at v = 1. For a head with texture coordinates and a capture
    with pictures, both as `open_fit` gives them. Clay without its light is one grey, as it was rendered in."""
    import torch

    assert head.has_uv and capture.views
    if capture.shading == "clay" and kind == "albedo":
        return to_uint8(np.full((size, size, 3), CLAY_GREY))
    coarse_size = size if size <= _COARSE else size // max(round(size / _COARSE), 1)
    rasterizer = make_rasterizer("cpu")
    coarse, texels = (texel_map(rasterizer, head, edge) for edge in (coarse_size, size))
    found = list(shots(fit, head, capture, chosen_views(fit, capture)))
    blended = weighed(head, found, coarse)
    color, weight = _assembled(head, found, blended, texels, size // coarse_size)
    light = None if fit.lights is None else _shading(head, found, fit.lights, texels)
    if light is not None:
        color = np.clip(color / np.maximum(light, 0.05), 0, 1)
    out = filled(head, texels, color, weight, coarse)
    if light is not None and kind == "shaded":
        out = np.clip(out * light, 0, 1)
    return to_uint8(fill_gutter(torch.as_tensor(out), texels.nearest_covered).numpy())


def baked_warnings(head: HeadModel, capture: Capture, kind: BakeKind = "albedo") -> list[str]:
    """What is wrong with a texture that is baked of such pictures, a sentence each."""
    if capture.shading != "clay" or not (head.has_uv and capture.views):
        return []
    if kind == "shaded":
        return ["The colours are of pictures of clay, whose light and shadows are in them."]
    return [
        "The pictures are of clay and show no colours, so the texture is its plain grey. Colours that the avatar may "
        "have are in pictures that are rendered with --shading unlit; --bake shaded keeps the clay's light and shadows."
    ]


def _shading(
    head: HeadModel, found: list[Shot], lights: Float[ndarray, "9 3"], texels: TexelMap
) -> Float[ndarray, "R R 3"]:
    """What a fit's light makes of a white head, the mean over the pictures."""
    import torch

    from flame_fitting.render.shading import sh_basis

    normals = {id(shot.posed): shot.posed.normals for shot in found}.values()
    basis = sh_basis(torch.as_tensor(np.stack(list(normals))).float())
    at_vertices = (basis @ torch.as_tensor(lights).float()).clamp_min(0).mean(0)
    return texels.interpolate(at_vertices, head.faces.cpu()).numpy()


def weighed(head: HeadModel, found: list[Shot], coarse: TexelMap) -> Blend:
    """What each picture counts for, on coarse texels."""
    covered = coarse.covered.numpy()
    face = coarse.face.numpy()[covered]
    corners = np.ascontiguousarray(coarse.barycentric.numpy()[covered])
    faces = head.faces.cpu().numpy()
    tissue = tissue_of_faces(head)[face]
    gaps, hair = gaps_of_faces(head)[face], tissue == NUMBER["hair"]
    quality = np.zeros((len(found), len(face)), dtype=np.float32)
    colors = np.zeros((len(found), len(face), 3), dtype=np.float32)
    hidden, open_ = np.zeros(len(face), dtype=np.int32), np.zeros(len(face), dtype=np.int32)
    geometry = np.empty((len(face), 5), dtype=np.float32)
    for b, shot in enumerate(found):
        posed = shot.posed
        kernels.sample(
            shot.places, posed.normals, posed.vertices, shot.eye, faces, face, corners,
            shot.rgba, shot.own, shot.avatar, colors[b], geometry,
        )  # fmt: skip
        quality[b], behind = shown(shot, geometry, gaps, hair)
        hidden += behind
        open_ += quality[b] > 0
    # what is covered for most that could see it is covered: the rest looks through strands and past edges
    most = hidden > open_
    quality[:, most] = 0
    first = blend(quality, colors, covered)
    image = np.zeros(covered.shape, dtype=bool)
    image[covered] = most
    other = other_colors(head, coarse.face.numpy(), first.mean, first.seen, image)
    other = cv2.dilate(other.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    quality[:, other[covered]] = 0
    # islands of what is seen are what shows between strands and folds
    islands = _small(quality.max(0) > 0, covered) & (tissue == NUMBER["skin"])
    quality[:, islands] = 0
    return blend(quality, colors, covered) if islands.any() or other.any() else first


def _small(seen: Bool[ndarray, " n"], covered: Bool[ndarray, "C C"]) -> Bool[ndarray, " n"]:
    """Texels in connected parts of what is seen that are too small to be told of."""
    image = np.zeros(covered.shape, dtype=np.uint8)
    image[covered] = seen
    _, labels, stats, _ = cv2.connectedComponentsWithStats(image, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < _ISLAND * covered.size
    small[0] = False
    return small[labels][covered]


def _assembled(
    head: HeadModel, found: list[Shot], blended: Blend, texels: TexelMap, ratio: int
) -> tuple[Float[ndarray, "R R 3"], Float[ndarray, "R R"]]:
    """The texture at full size, and how far each texel is seen (0..1)."""
    size = texels.face.shape[0]
    faces, face, corners = head.faces.cpu().numpy(), texels.face.numpy(), texels.barycentric.numpy()
    total = np.zeros((size, size, 4), dtype=np.float32)
    for shot, weight, shift in zip(found, blended.weight, blended.shift, strict=True):
        if shift is None:
            continue
        near = cv2.dilate((weight > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
        kernels.add_view(
            shot.places, faces, face, corners, np.ascontiguousarray(shot.rgba[..., :3]), weight, shift,
            np.argwhere(near).astype(np.int32), ratio, total,
        )  # fmt: skip
    weight = total[..., 3]
    color = np.clip(total[..., :3] / np.maximum(weight, 1e-6)[..., None], 0, 1)
    seen = cv2.resize(blended.seen, (size, size), interpolation=cv2.INTER_LINEAR) if ratio > 1 else blended.seen
    return color, np.where(weight > 1e-4, np.clip(seen, 0, 1), 0).astype(np.float32)
