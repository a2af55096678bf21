"""Lights from a shaded texture: known coefficients come back, up to the scale that albedo and light share."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from flame_fitting.fit.lighting import estimate_lights, turned_lights
from flame_fitting.fit.texture import Bake, texel_map
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.render.shading import sh_basis, sh_shading, vertex_normals
from tests.toy import toy_head_data

SIZE = 96
TINT = torch.tensor([0.8, 0.6, 0.5])


@pytest.fixture(scope="module")
def shaded():
    """A round head under known light, all of it skin, and its shading."""
    data = toy_head_data()
    sphere = np.asarray(trimesh.creation.icosphere(subdivisions=3).vertices)
    head = HeadModel(replace(data, v_template=0.1 * sphere, regions={"face": np.arange(len(sphere))}))
    texels = texel_map(make_rasterizer("cpu"), head, SIZE)
    normals = vertex_normals(head.v_template[None], head.faces)[0]
    normal = torch.nn.functional.normalize(texels.interpolate(normals, head.faces), dim=-1)
    lights = torch.zeros(9, 3)
    lights[0] = 3.0
    lights[1:4] = torch.tensor([[0.25, 0.2, 0.15], [0.4, 0.4, 0.3], [0.5, 0.45, 0.5]])
    lights[4:] = 0.08 * torch.tensor([[1.0], [-1.0], [0.5], [1.0], [-0.5]])
    return head, texels, lights, (sh_basis(normal) @ lights) * texels.covered[..., None]


def test_known_lights_come_back_up_to_scale(shaded) -> None:
    head, texels, lights, shading = shaded
    baked = Bake(TINT * 0.9 * shading, texels.covered.float())
    found, estimated = estimate_lights(head, head.v_template, baked, texels)
    # each channel has its own scale: albedo times light is all that a picture shows
    torch.testing.assert_close(found / found[0], lights / lights[0], atol=0.02, rtol=0)
    covered = texels.covered
    torch.testing.assert_close(estimated[covered].mean(0), torch.ones(3), atol=0.05, rtol=0)
    albedo = (baked.color / estimated)[covered]
    assert (albedo.std(0) / albedo.mean(0)).max() < 0.01, "the light is gone from the texture"
    assert (baked.color[covered].std(0) / baked.color[covered].mean(0)).min() > 0.1


def test_turned_lights_lie_in_memory_as_they_are_read(shaded) -> None:
    """Kernels step through coefficients row by row: columns one after the other would move the wrong ones."""
    lights = shaded[2]
    turned = turned_lights(lights, rotation_matrix(torch.tensor([0.1, -0.2, 0.3])))
    assert turned.is_contiguous() and turned.shape == lights.shape


def test_moles_and_brows_do_not_bend_the_light(shaded) -> None:
    head, texels, lights, shading = shaded
    color = TINT * 0.9 * shading
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    dark = (rows > 20) & (rows < 40) & (columns > 30) & (columns < 60)
    color[dark] *= 0.2
    found, _ = estimate_lights(head, head.v_template, Bake(color, texels.covered.float()), texels)
    torch.testing.assert_close(found / found[0], lights / lights[0], atol=0.03, rtol=0)


def test_texels_that_no_view_saw_do_not_count(shaded) -> None:
    head, texels, lights, shading = shaded
    color, weight = TINT * 0.9 * shading, texels.covered.float()
    weight[:, : SIZE // 3] = 0.0
    color[:, : SIZE // 3] = 5.0
    found, _ = estimate_lights(head, head.v_template, Bake(color, weight), texels)
    torch.testing.assert_close(found / found[0], lights / lights[0], atol=0.05, rtol=0)


def test_turned_lights_shade_turned_normals_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    lights, normals = torch.randn(9, 3, generator=generator), torch.randn(50, 3, generator=generator)
    normals = torch.nn.functional.normalize(normals, dim=-1)
    rotation = rotation_matrix(torch.tensor([[0.4, -0.9, 0.3]]))[0]
    turned = turned_lights(lights, rotation)
    torch.testing.assert_close(sh_shading(normals @ rotation.T, turned), sh_shading(normals, lights), rtol=0, atol=1e-5)
    torch.testing.assert_close(turned_lights(turned, rotation.T), lights, rtol=0, atol=1e-5)
