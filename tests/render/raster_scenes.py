"""Scenes on which rasterizers are compared, and everything that is compared: values and gradients of every operation.

Inputs are the same to the last bit on every machine: coordinates are rounded to a coarse binary grid. Triangles far
smaller than a pixel have enormous gradients, so that one pixel on such a triangle would drown a picture: random
upstream gradients are damped there.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from torch import Tensor

from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.head.loading import load_head
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.mesh import clip_matrix, clip_positions
from flame_fitting.render.texturing import uv_to_texture
from flame_fitting.render.winding import front_faces

NEAR, FAR = 0.05, 20.0


@dataclass(frozen=True)
class Camera:
    """Cameras of a scene's views."""

    K: Tensor
    """(B, 3, 3)"""
    world_to_camera: Tensor
    """(B, 4, 4)"""


@dataclass(frozen=True)
class Scene:
    """One mesh in B views, on the CPU."""

    name: str
    pos: Tensor
    """(B, V, 4) clip space"""
    tri: Tensor
    """(F, 3) int32"""
    uv: Tensor
    """(VT, 2) as `Rasterizer.texture` takes it"""
    uv_tri: Tensor
    """(F, 3) int32"""
    face_mask: Tensor
    """(B, F); the head's front faces, random faces of soups"""
    resolution: tuple[int, int]
    vertices: Tensor | None = None
    """(V, 3), where the whole step is compared too"""
    camera: Camera | None = None


@dataclass
class Results:
    """What a rasterizer made of a scene. Names are "group/quantity"; pictures of a group belong to its triangles."""

    triangles: dict[str, NDArray] = field(default_factory=dict)
    """group: (B, H, W) triangle index + 1"""
    pictures: dict[str, NDArray] = field(default_factory=dict)
    """(B, H, W, C) values"""
    picture_gradients: dict[str, NDArray] = field(default_factory=dict)
    """(B, H, W, C)"""
    gradients: dict[str, NDArray] = field(default_factory=dict)
    """of vertices, attributes and texels, any shape"""


ANTIALIASED = ("color", "image", "grad_color")
"""Pictures in which a pixel depends on the triangles of its neighbours too."""


def all_scenes() -> list[Scene]:
    return [head(), close_up(), clipped_soup(), soup()]


def head(size: int = 112) -> Scene:
    """The open head from the front, and from below where its inside shows through the neck."""
    return _head_scene("head", [(-0.5, 0.15), (0.7, -0.8)], size, size, fov=25.0, distance=0.85, target=(0.0, 0.0, 0.0))


def close_up(height: int = 96, width: int = 112) -> Scene:
    """The open head's eyes and mouth from near by; the head is larger than the picture."""
    return _head_scene("close_up", [(0.25, -0.1)], height, width, fov=25.0, distance=0.36, target=(0.0, -0.02, 0.04))


def clipped_soup(height: int = 72, width: int = 96) -> Scene:
    """Large triangles around the camera: through the near plane, behind it, beyond the far plane and the borders."""
    rng = np.random.default_rng(11)
    world = rng.uniform(-4, 4, (50, 1, 3)) + rng.uniform(-2.5, 2.5, (50, 3, 3))
    near, far = 0.5, 5.0
    depth = world[..., 2:]
    clip = np.concatenate([world[..., :2], (depth * (far + near) - 2 * far * near) / (far - near), depth], axis=-1)
    return _soup("clipped_soup", clip, rng, height, width)


def soup(height: int = 96, width: int = 72) -> Scene:
    """Triangles inside the frustum that intersect each other."""
    rng = np.random.default_rng(12)
    xy = rng.uniform(-0.7, 0.7, (40, 1, 2)) + rng.uniform(-0.28, 0.28, (40, 3, 2))
    z, w = rng.uniform(-0.9, 0.9, (40, 3, 1)), rng.uniform(0.6, 1.6, (40, 3, 1))
    return _soup("soup", np.concatenate([xy * w, z * w, w], axis=-1), rng, height, width)


def scene_results(rasterizer: Rasterizer, scene: Scene, still: dict[str, NDArray] | None = None) -> Results:
    """Every operation on a scene but `texture`, which has inputs of its own, and the whole step where it has one.

    Pixels (B, H, W) that are `still`, by group, have no slope.
    """
    results, still = Results(), still or {}
    _geometry(rasterizer, scene, None, "all", results, still.get("all"))
    _geometry(rasterizer, scene, scene.face_mask, "front", results, still.get("front"))
    if scene.vertices is not None:
        _step(rasterizer, scene, results, still.get("step"))
    return results


def shown_differently(a: Results, b: Results) -> dict[str, NDArray]:
    """Pixels in which two rasterizers show different triangles, by group."""
    return {group: triangles != b.triangles[group] for group, triangles in a.triangles.items()}


def _slopes(still: NDArray | None, like: Tensor, around: int = 0) -> Tensor:
    """(B, H, W, 1) 0 in pixels that are still, and so far around them, else 1."""
    if still is None:
        return torch.ones_like(like[..., :1])
    wide = binary_dilation(still, np.ones((1, 2 * around + 1, 2 * around + 1), bool))
    return torch.from_numpy(~wide[..., None]).to(like)


TEXTURE_CASES = {
    "mip_clamp": ("linear-mipmap-linear", "clamp", None, 1),
    "mip_wrap_3_levels": ("linear-mipmap-linear", "wrap", 3, 1),
    "mip_clamp_of_each_view": ("linear-mipmap-linear", "clamp", None, 2),
    "linear_clamp": ("linear", "clamp", None, 1),
    "linear_wrap": ("linear", "wrap", None, 1),
    "linear_zero": ("linear", "zero", None, 1),
    "nearest_clamp": ("nearest", "clamp", None, 1),
    "nearest_wrap": ("nearest", "wrap", None, 1),
    "nearest_zero": ("nearest", "zero", None, 1),
}
"""Filter, boundary, highest mip level and number of textures, for two views."""


def texture_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Two textures (2, 32, 64, 3), coordinates (2, 24, 28, 2) in and around them, and their derivatives (.., 4)."""
    rng = np.random.default_rng(13)
    # Odd multiples of 2^-13: no sample lies on a border between texels, and none is moved by rounding.
    uv = (2 * np.floor(rng.uniform(-0.3, 1.3, (2, 24, 28, 2)) * 2**12) + 1) / 2**13
    scale = np.exp2(rng.uniform(-8, -1, (2, 24, 28, 1)))
    uv_da = _grid(rng.uniform(-1, 1, (2, 24, 28, 4)) * scale)
    return _float(_grid(rng.random((2, 32, 64, 3)))), _float(uv), _float(uv_da)


def texture_results(rasterizer: Rasterizer) -> Results:
    """Values and gradients of `texture` in all its modes."""
    results = Results()
    tex_, uv_, uv_da_ = (tensor.to(rasterizer.device) for tensor in texture_inputs())
    for name, (mode, boundary, max_level, n_textures) in TEXTURE_CASES.items():
        tex, uv = tex_[:n_textures].clone().requires_grad_(), uv_.clone().requires_grad_()
        uv_da = uv_da_.clone().requires_grad_() if mode == "linear-mipmap-linear" else None
        out = rasterizer.texture(tex, uv, uv_da, mode, boundary, max_level)  # type: ignore[arg-type]
        inputs = {"texture": tex}
        if mode != "nearest":
            inputs["uv"] = uv
        if uv_da is not None:
            inputs["uv_da"] = uv_da
        results.pictures[f"{name}/color"] = _numpy(out)
        _keep_gradients(results, name, (out * _random(out, 1)).sum(), inputs)
    return results


def input_hash(*tensors: Tensor) -> str:
    """sha256 of inputs, to tell other inputs from other results."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()


def scene_hash(scene: Scene) -> str:
    tensors = [scene.pos, scene.tri, scene.uv, scene.uv_tri, scene.face_mask, _random(scene.pos, 0)]
    if scene.vertices is not None and scene.camera is not None:
        tensors += [scene.vertices, scene.camera.K, scene.camera.world_to_camera]
    return input_hash(*tensors)


def _geometry(
    rasterizer: Rasterizer,
    scene: Scene,
    face_mask: Tensor | None,
    group: str,
    results: Results,
    still: NDArray | None,
) -> None:
    """Rasterize, interpolate and antialias, each by itself."""
    device = rasterizer.device
    tri, uv_tri = scene.tri.to(device), scene.uv_tri.to(device)
    pos = scene.pos.to(device).requires_grad_()
    mask = None if face_mask is None else face_mask.to(device)
    rast, rast_db = rasterizer.rasterize(pos, tri, scene.resolution, mask)
    results.triangles[group] = _numpy(rast[..., 3])
    results.pictures[f"{group}/rast"] = _numpy(rast[..., :3])
    results.pictures[f"{group}/rast_db"] = _numpy(rast_db)
    moving, around = _slopes(still, rast), _slopes(still, rast, 1)  # antialiasing looks at neighbours
    damping = _damping(rast_db) * moving
    (of_rast,) = torch.autograd.grad(
        (rast[..., :2] * _random(rast[..., :2], 2) * damping).sum(), pos, retain_graph=True
    )
    (of_db,) = torch.autograd.grad((rast_db * _random(rast_db, 3) * damping.square()).sum(), pos)
    results.gradients[f"{group}/rast_to_pos"] = _numpy(of_rast)
    results.gradients[f"{group}/rast_db_to_pos"] = _numpy(of_db)

    attr = scene.uv.to(device)[None].requires_grad_()
    rast, rast_db = rast.detach().requires_grad_(), rast_db.detach().requires_grad_()
    uv, uv_da = rasterizer.interpolate(attr, rast, uv_tri, rast_db, "all")
    results.pictures[f"{group}/uv"], results.pictures[f"{group}/uv_da"] = _numpy(uv), _numpy(uv_da)
    loss = (uv * _random(uv, 4) * moving).sum() + (uv_da * _random(uv_da, 5) * damping).sum()
    of_attr, grad_rast, grad_db = torch.autograd.grad(loss, (attr, rast, rast_db))
    results.gradients[f"{group}/interpolate_to_attr"] = _numpy(of_attr)
    results.picture_gradients[f"{group}/grad_rast"] = _numpy(grad_rast[..., :2])
    results.picture_gradients[f"{group}/grad_rast_db"] = _numpy(grad_db)

    covered = (rast.detach()[..., 3:] > 0).float()
    color = (torch.cat([uv.detach(), covered], dim=-1) + 0.2 * _random(rast[..., :3], 6)).requires_grad_()
    position = scene.pos.to(device).requires_grad_()
    out = rasterizer.antialias(color, rast.detach(), position, tri, rasterizer.topology(tri))
    results.pictures[f"{group}/color"] = _numpy(out)
    grad_color, grad_pos = torch.autograd.grad((out * _random(out, 7) * around).sum(), (color, position))
    results.picture_gradients[f"{group}/grad_color"] = _numpy(grad_color)
    results.gradients[f"{group}/antialias_to_pos"] = _numpy(grad_pos)


def _step(rasterizer: Rasterizer, scene: Scene, results: Results, still: NDArray | None) -> None:
    """A whole photometric step: vertices and texture to an L1 loss against a picture, and back."""
    assert scene.vertices is not None and scene.camera is not None
    device = rasterizer.device
    tri, uv_tri, uv_attr = scene.tri.to(device), scene.uv_tri.to(device), scene.uv.to(device)[None]
    vertices = scene.vertices.to(device).requires_grad_()
    texture = step_texture().to(device).requires_grad_()
    clip = clip_matrix(scene.camera.K, scene.camera.world_to_camera, scene.resolution, NEAR, FAR).to(device)
    pos = clip_positions(vertices[None], clip)
    rast, rast_db = rasterizer.rasterize(pos, tri, scene.resolution, front_faces(pos, tri))
    uv, uv_da = rasterizer.interpolate(uv_attr, rast, uv_tri, rast_db, "all")
    covered = (rast[..., 3:] > 0).float()
    layers = torch.cat([rasterizer.texture(texture, uv, uv_da) * covered, covered], dim=-1)
    image = rasterizer.antialias(layers, rast, pos, tri, rasterizer.topology(tri))
    target = 0.5 + 0.2 * _random(image, 8)
    loss = ((image - target).abs() * _slopes(still, image, 1)).sum()
    of_vertices, of_texture = torch.autograd.grad(loss, (vertices, texture))
    results.triangles["step"] = _numpy(rast[..., 3])
    results.pictures["step/image"] = _numpy(image)
    results.gradients["step/vertices"] = _numpy(of_vertices)
    results.gradients["step/texture"] = _numpy(of_texture)


def step_texture(size: int = 128) -> Tensor:
    """(1, size, size, 3), smooth over a few texels."""
    noise = np.random.default_rng(14).random((size, size, 3))
    for _ in range(2):
        noise = np.sum([np.roll(noise, shift, axis=axis) for axis in (0, 1) for shift in (-1, 0, 1)], axis=0) / 6
    low, high = noise.min(), noise.max()
    return _float(_grid((noise - low) / (high - low)))[None]


def _head_scene(
    name: str,
    directions: list[tuple[float, float]],
    height: int,
    width: int,
    fov: float,
    distance: float,
    target: tuple[float, float, float],
) -> Scene:
    model = load_head("open")
    assert model.uv is not None and model.uv_faces is not None
    vertices = model.v_template.numpy().astype(np.float64)
    centre = 0.5 * (vertices.min(0) + vertices.max(0)) + np.array(target)
    yaw, pitch = np.array(directions).T
    offset = np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], axis=-1)
    camera = Camera(
        K=_float(_grid(np.broadcast_to(intrinsics_from_fov(fov, width, height), (len(yaw), 3, 3)))),
        world_to_camera=_float(_grid(look_at(centre + distance * offset, centre, [0.0, 1.0, 0.0]))),
    )
    vertices_ = _float(_grid(vertices))
    clip = clip_matrix(camera.K.double(), camera.world_to_camera.double(), (height, width), NEAR, FAR)
    pos = vertices_.double()[None] @ clip[:, :, :3].transpose(1, 2) + clip[:, None, :, 3]
    pos = _float(_grid(pos.numpy()))
    tri = model.faces.int()
    return Scene(
        name=name,
        pos=pos,
        tri=tri,
        uv=_float(_grid(uv_to_texture(model.uv.double()).numpy())),
        uv_tri=model.uv_faces.int(),
        face_mask=front_faces(pos.double(), tri),
        resolution=(height, width),
        vertices=vertices_,
        camera=camera,
    )


def _soup(name: str, clip: NDArray, rng: np.random.Generator, height: int, width: int) -> Scene:
    """Triangles (F, 3, 4), without common vertices."""
    n = len(clip)
    tri = torch.arange(3 * n, dtype=torch.int32).reshape(n, 3)
    uv = _float(_grid(rng.random((3 * n, 2))))
    mask = torch.from_numpy(rng.random((1, n)) < 0.6)
    return Scene(name, _float(_grid(clip.reshape(1, -1, 4))), tri, uv, tri, mask, (height, width))


def _damping(rast_db: Tensor) -> Tensor:
    """About 1 on triangles of a pixel or more, the square of a triangle's size in pixels below."""
    return 1.0 / (1.0 + rast_db.detach().square().sum(dim=-1, keepdim=True))


def _keep_gradients(results: Results, group: str, loss: Tensor, inputs: dict[str, Tensor]) -> None:
    for name, gradient in zip(inputs, torch.autograd.grad(loss, list(inputs.values())), strict=True):
        results.gradients[f"{group}/{name}"] = _numpy(gradient)


def _random(like: Tensor, seed: int) -> Tensor:
    return _float(np.random.default_rng(100 + seed).standard_normal(tuple(like.shape))).to(like.device)


def _grid(values: NDArray) -> NDArray:
    """To multiples of 2^-18, which float32 has exactly below 64."""
    return np.round(np.asarray(values, dtype=np.float64) * 2**18) / 2**18


def _float(values: NDArray) -> Tensor:
    return torch.tensor(np.ascontiguousarray(values), dtype=torch.float32)


def _numpy(tensor: Tensor) -> NDArray:
    return tensor.detach().cpu().numpy()
