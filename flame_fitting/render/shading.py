"""Normals and light on surfaces. Differentiable, on any device."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Real spherical harmonics times the clamped cosine's coefficients, 2 pi / 3 for order 1 and pi / 4 for order 2
# (Ramamoorthi and Hanrahan 2001, "An Efficient Representation for Irradiance Environment Maps"). Order 0 leaves its
# factor pi in the light: FLAME trackers write their lights so.
_ORDER_0 = 0.5 * math.sqrt(1.0 / math.pi)
_ORDER_1 = 0.5 * math.sqrt(3.0 / math.pi) * 2.0 * math.pi / 3.0
_ORDER_2 = 0.5 * math.sqrt(15.0 / math.pi) * math.pi / 4.0
_ORDER_2_ZZ = 0.25 * math.sqrt(5.0 / math.pi) * math.pi / 4.0


def face_normals(vertices: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "B F 3"]:
    """Unnormalised face normals: length is twice the area, direction outward for counter-clockwise faces."""
    a, b, c = (vertices.index_select(1, faces[:, k].long()) for k in range(3))
    return torch.linalg.cross(b - a, c - a, dim=-1)


def vertex_normals(vertices: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "B V 3"]:
    """Area-weighted unit vertex normals; (0, 0, 1) where a vertex has no area around it."""
    per_face = face_normals(vertices, faces)
    total = torch.zeros_like(vertices)
    for k in range(3):
        total = total.index_add(1, faces[:, k].long(), per_face)
    return safe_normalize(total)


def triangle_axes(corners: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Along the first edge, across it, and the outward normal of triangles, as columns of unit length."""
    a, b, c = corners.unbind(-2)
    along, normal = safe_normalize(b - a), safe_normalize(torch.linalg.cross(b - a, c - a, dim=-1))
    return torch.stack([along, torch.linalg.cross(normal, along, dim=-1), normal], dim=-1)


def safe_normalize(vectors: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """Unit vectors; (0, 0, 1) for zero vectors, without NaN in the gradient."""
    # Areas of real meshes in metres go down to 1e-9, their squares below what float32 resolves near 0.
    largest = vectors.detach().abs().amax(dim=-1, keepdim=True)
    empty = largest < 1e-30
    zero = torch.zeros_like(largest)  # no constant from the host: a CUDA graph could not hold it
    scaled = torch.where(empty, torch.cat([zero, zero, zero + 1], dim=-1), vectors / torch.where(empty, 1.0, largest))
    return scaled / scaled.norm(dim=-1, keepdim=True)


def sh_basis(normals: Float[Tensor, "... 3"]) -> Float[Tensor, "... 9"]:
    """Order-2 irradiance basis at unit normals, in the order [1, x, y, z, xy, xz, yz, x^2 - y^2, 3 z^2 - 1]."""
    x, y, z = normals.unbind(-1)
    terms = [
        _ORDER_0 * torch.ones_like(x),
        _ORDER_1 * x,
        _ORDER_1 * y,
        _ORDER_1 * z,
        _ORDER_2 * x * y,
        _ORDER_2 * x * z,
        _ORDER_2 * y * z,
        0.5 * _ORDER_2 * (x * x - y * y),
        _ORDER_2_ZZ * (3.0 * z * z - 1.0),
    ]
    return torch.stack(terms, dim=-1)


def sh_shading(normals: Float[Tensor, "... 3"], lights: Float[Tensor, "9 3"]) -> Float[Tensor, "... 3"]:
    """Irradiance per colour channel at unit normals; not clamped."""
    return sh_basis(normals) @ lights


def ambient_light() -> Float[Tensor, "9 3"]:
    """The light under which every surface shows its albedo."""
    lights = torch.zeros(9, 3)
    lights[0] = 1.0 / _ORDER_0
    return lights


def shade(
    albedo: Float[Tensor, "... 3"], normals: Float[Tensor, "... 3"], lights: Float[Tensor, "9 3"] | None
) -> Float[Tensor, "... 3"]:
    """Colours under spherical-harmonic light, or unlit (the albedo itself) with None."""
    return albedo if lights is None else albedo * sh_shading(normals, lights)
