"""Renders a mesh into the buffers that losses and pictures need, from one rasterization."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flame_fitting.render.interface import FilterMode, Rasterizer
from flame_fitting.render.shading import sh_shading, vertex_normals
from flame_fitting.render.texturing import uv_to_texture
from flame_fitting.render.winding import front_faces


def clip_matrix(
    K: Float[Tensor, "B 3 3"],
    world_to_camera: Float[Tensor, "B 4 4"],
    resolution: tuple[int, int],
    near: float | Float[Tensor, " B"],
    far: float | Float[Tensor, " B"],
) -> Float[Tensor, "B 4 4"]:
    """`capture.camera.clip_from_world` on tensors, differentiable with respect to the cameras; resolution (H, W)."""
    height, width = resolution
    near_, far_ = (
        torch.as_tensor(near, dtype=K.dtype, device=K.device),
        torch.as_tensor(far, dtype=K.dtype, device=K.device),
    )
    zero, one = torch.zeros_like(K[:, 0, 0]), torch.ones_like(K[:, 0, 0])
    rows = [
        [2 * K[:, 0, 0] / width, 2 * K[:, 0, 1] / width, 2 * K[:, 0, 2] / width - 1, zero],
        [2 * K[:, 1, 0] / height, 2 * K[:, 1, 1] / height, 2 * K[:, 1, 2] / height - 1, zero],
        [zero, zero, one * (far_ + near_) / (far_ - near_), -2 * one * far_ * near_ / (far_ - near_)],
        [zero, zero, one, zero],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2) @ world_to_camera


def clip_positions(
    vertices: Float[Tensor, "B_or_1 V 3"], clip_from_world: Float[Tensor, "B 4 4"]
) -> Float[Tensor, "B V 4"]:
    """Clip-space vertices (B, V, 4) float32 for `Rasterizer.rasterize`."""
    rotation, offset = clip_from_world[:, :, :3], clip_from_world[:, :, 3]
    return (vertices @ rotation.transpose(1, 2) + offset[:, None]).float()


def zoomed_clip(clip: Float[Tensor, "*batch 4 4"], factor: float) -> Float[Tensor, "*batch 4 4"]:
    """`clip_from_world` of the same cameras with so many times the focal length, principal points centred."""
    return clip.new_tensor([factor, factor, 1.0, 1.0])[:, None] * clip


def render_mesh(
    rasterizer: Rasterizer,
    vertices: Float[Tensor, "B_or_1 V 3"],
    faces: Int[Tensor, "F 3"],
    K: Float[Tensor, "B 3 3"],
    world_to_camera: Float[Tensor, "B 4 4"],
    resolution: tuple[int, int],
    *,
    near: float | Float[Tensor, " B"] = 0.05,
    far: float | Float[Tensor, " B"] = 20.0,
    uv: Float[Tensor, "VT 2"] | None = None,
    uv_faces: Int[Tensor, "F 3"] | None = None,
    texture: Float[Tensor, "B_or_1 Ht Wt C"] | None = None,
    vertex_colors: Float[Tensor, "B_or_1 V C"] | None = None,
    normals: Float[Tensor, "B_or_1 V 3"] | None = None,
    lights: Float[Tensor, "9 3"] | None = None,
    background: Float[Tensor, " C"] | Float[Tensor, "B H W C"] | None = None,
    cull: bool = True,
    antialias: bool = True,
    topology: Any | None = None,
    filter_mode: FilterMode = "auto",
    max_mip_level: int | None = None,
) -> dict[str, Tensor]:
    """Renders B views of a mesh. Everything is differentiable where the rasterizer's operations are.

    Args:
        vertices: in the space that `world_to_camera` maps from.
        near, far: depths along the camera's z, in the vertices' unit.
        uv, uv_faces: mesh texture coordinates (v = 0 at the picture's bottom) and their own index, row for row with
            `faces`.
        texture: colours, sampled at the pixels; else `vertex_colors`; else there is no colour buffer. Give the texture
            a gutter (`render.gutter`) where it is mip-mapped.
        normals: unit vertex normals in the vertices' space; computed from the vertices by default.
        lights: spherical-harmonic light in the vertices' space. It is evaluated at the vertices, whose spacing is
            small against the variation of order-2 light. None is unlit.
        background: colour behind the mesh, 0 by default.
        cull: drop faces that point away (`render.winding`).
        topology: of `rasterizer.topology(faces)`, to save its computation.

    Returns:
        color (B, H, W, C), alpha (B, H, W, 1), both antialiased; depth (B, H, W, 1) along the camera's z and unit
        normal (B, H, W, 3) at pixel centres, 0 outside; uv (B, H, W, 2) as `Rasterizer.texture` takes it; rast
        (B, H, W, 4) and pos (B, V, 4).
    """
    faces = faces.int()
    pos = clip_positions(vertices, clip_matrix(K, world_to_camera, resolution, near, far))
    rast, rast_db = rasterizer.rasterize(pos, faces, resolution, front_faces(pos, faces) if cull else None)
    covered = (rast[..., 3:] > 0).to(pos.dtype)
    buffers: dict[str, Tensor] = {"rast": rast, "pos": pos}

    # w of clip space is the depth.
    depth, _ = rasterizer.interpolate(pos[..., 3:].contiguous(), rast, faces)
    if normals is None:
        normals = vertex_normals(vertices, faces)
    attributes = [normals] if lights is None else [normals, sh_shading(normals, lights)]
    surface, _ = rasterizer.interpolate(torch.cat(attributes, dim=-1).float(), rast, faces)
    buffers["depth"] = depth
    # The epsilon is for empty pixels: interpolated normals of real surfaces are not that short.
    buffers["normal"] = surface[..., :3] / surface[..., :3].square().sum(-1, keepdim=True).add(1e-20).sqrt()

    color = None
    if texture is not None:
        if uv is None or uv_faces is None:
            raise ValueError("a texture needs uv and uv_faces")
        mipmapped = filter_mode in ("auto", "linear-mipmap-linear")
        texcoord, texcoord_da = rasterizer.interpolate(
            uv_to_texture(uv).float()[None], rast, uv_faces.int(), rast_db, "all" if mipmapped else None
        )
        buffers["uv"] = texcoord
        color = rasterizer.texture(
            texture, texcoord, texcoord_da if mipmapped else None, filter_mode, max_mip_level=max_mip_level
        )
    elif vertex_colors is not None:
        color, _ = rasterizer.interpolate(vertex_colors.float(), rast, faces)

    layers = [covered]
    if color is not None:
        if lights is not None:
            color = color * surface[..., 3:6]
        color = color * covered
        if background is not None:
            color = color + background * (1.0 - covered)
        layers.insert(0, color)
    image = torch.cat(layers, dim=-1)
    if antialias:
        image = rasterizer.antialias(image, rast, pos, faces, topology)
    if color is not None:
        buffers["color"] = image[..., :-1]
    buffers["alpha"] = image[..., -1:]
    return buffers
