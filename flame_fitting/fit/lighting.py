"""Second-order spherical-harmonic light of a lit capture, in closed form.

Lights are fixed in the head frame and shading is diffuse, so a texel looks the same from everywhere: its picture colour
is albedo times B(n) L. Albedo and light are told apart by taking the skin's albedo to be nearly constant: L solves a
robust linear least-squares problem over skin texels, with mean shading 1.
"""

import torch
from torch import Tensor

from flame_fitting.fit.texture import Bake
from flame_fitting.head.model import HeadModel
from flame_fitting.render.shading import sh_basis, vertex_normals
from flame_fitting.render.texturing import TexelMap


def turned_lights(lights: Tensor, rotation: Tensor) -> Tensor:
    """Coefficients (9, 3) after `rotation` (3, 3) turned the light: B(R n) turned = B(n) lights for every normal n.

    Order-2 harmonics are closed under rotation, so nine and more directions determine the answer exactly.
    """
    grid = torch.linspace(-1, 1, 5, dtype=torch.float64, device=lights.device)
    points = torch.cartesian_prod(grid, grid, grid)
    directions = torch.nn.functional.normalize(points[points.norm(dim=-1) > 0.1], dim=-1)
    turned = sh_basis(directions @ rotation.double().to(lights.device).T)
    # the solver leaves columns one after the other; kernels that step through memory want rows
    return torch.linalg.lstsq(turned, sh_basis(directions) @ lights.double()).solution.to(lights).contiguous()


def estimate_lights(head: HeadModel, vertices: Tensor, baked: Bake, texels: TexelMap) -> tuple[Tensor, Tensor]:
    """Coefficients (9, 3) for normals of the frame of `vertices` (V, 3), and the shading (R, R, 3) of every texel."""
    normals = vertex_normals(vertices[None], head.faces)[0]
    rows, cols = torch.nonzero(texels.covered, as_tuple=True)
    face = texels.face[rows, cols]
    weights = texels.barycentric[rows, cols].to(vertices)
    normal = torch.nn.functional.normalize((normals[head.faces[face]] * weights[..., None]).sum(1), dim=-1)
    basis = sh_basis(normal).float()
    skin = head.face_mask("skin", "face")[face] & (baked.weight[rows, cols] > 1e-3)
    if not skin.any():
        skin = baked.weight[rows, cols] > 1e-3
    system, color = basis[skin], baked.color[rows, cols][skin]
    trust = torch.ones_like(system[:, :1])
    lights = system.new_zeros(9, 3)
    for _ in range(10):
        left = (system * trust).T @ system + 1e-3 * len(system) / 9 * torch.eye(9, device=system.device)
        lights = torch.linalg.solve(left, (system * trust).T @ color)
        residual = (system @ lights - color).abs().mean(-1, keepdim=True)
        trust = 1 / (1 + (residual / 0.05).square()).square()
    mean = (system @ lights).mean(0).clamp_min(1e-3)
    lights = lights / mean
    shading = torch.ones(*texels.face.shape, 3, device=system.device)
    shading[rows, cols] = basis @ lights
    return lights, shading
