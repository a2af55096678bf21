"""Normals, light and winding."""

import numpy as np
import torch
import trimesh

from flame_fitting.capture.camera import clip_from_world, intrinsics_from_fov, look_at
from flame_fitting.render.shading import (
    ambient_light,
    safe_normalize,
    sh_basis,
    sh_shading,
    shade,
    vertex_normals,
)
from flame_fitting.render.winding import front_faces


def sphere() -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions=3)
    return torch.tensor(np.asarray(mesh.vertices), dtype=torch.float32)[None], torch.tensor(np.asarray(mesh.faces))


def test_vertex_normals_of_a_sphere_point_outward() -> None:
    vertices, faces = sphere()
    for scale in (1e-3, 1.0, 1e3):
        normals = vertex_normals(vertices * scale, faces)
        assert ((normals * vertices).sum(-1) > 0.999).all()
        torch.testing.assert_close(normals.norm(dim=-1), torch.ones(1, len(vertices[0])))


def test_vertex_normals_weigh_faces_by_area() -> None:
    # A large face toward +z and a small one toward +x meet at vertex 0.
    vertices = torch.tensor([[[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 1, 0], [0, 0, 1]]])
    normals = vertex_normals(vertices, torch.tensor([[0, 1, 2], [0, 3, 4]]))
    expected = torch.tensor([1.0, 0.0, 4.0]) / 17**0.5
    torch.testing.assert_close(normals[0, 0], expected)


def test_vertex_normals_without_area_have_a_fallback_and_no_nan_gradient() -> None:
    vertices = torch.zeros(1, 3, 3, requires_grad=True)
    normals = vertex_normals(vertices, torch.tensor([[0, 1, 2]]))
    assert torch.equal(normals.detach()[0], torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3))
    normals.sum().backward()
    assert vertices.grad.isfinite().all()


def test_vertex_normal_gradients() -> None:
    torch.manual_seed(0)
    vertices = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    faces = torch.tensor([[0, 1, 2], [2, 3, 4], [1, 5, 2]])
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, faces), vertices)
    assert torch.autograd.gradcheck(safe_normalize, torch.randn(4, 3, dtype=torch.float64, requires_grad=True))


def test_sh_light_is_the_clamped_cosine_integral() -> None:
    # A random order-2 environment, integrated against max(0, n.w) over the sphere.
    n = 400
    theta = (np.arange(n) + 0.5) * np.pi / n
    phi = (np.arange(2 * n) + 0.5) * np.pi / n
    t, p = np.meshgrid(theta, phi, indexing="ij")
    d = np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], -1).reshape(-1, 3)
    solid_angle = (np.sin(t) * (np.pi / n) ** 2).reshape(-1)
    x, y, z = d.T
    harmonics = np.stack(
        [
            np.full_like(x, np.sqrt(1 / (4 * np.pi))),
            np.sqrt(3 / (4 * np.pi)) * x,
            np.sqrt(3 / (4 * np.pi)) * y,
            np.sqrt(3 / (4 * np.pi)) * z,
            np.sqrt(15 / (4 * np.pi)) * x * y,
            np.sqrt(15 / (4 * np.pi)) * x * z,
            np.sqrt(15 / (4 * np.pi)) * y * z,
            np.sqrt(15 / (16 * np.pi)) * (x * x - y * y),
            np.sqrt(5 / (16 * np.pi)) * (3 * z * z - 1),
        ]
    )
    # Orthonormal, so these are the harmonics and not some multiples.
    np.testing.assert_allclose((harmonics * solid_angle) @ harmonics.T, np.eye(9), atol=1e-4)
    rng = np.random.default_rng(0)
    environment = rng.normal(size=9)
    radiance = environment @ harmonics
    lights = environment.copy()
    lights[0] *= np.pi  # order 0 holds its cosine factor in the light
    normals = rng.normal(size=(20, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    expected = (np.maximum(normals @ d.T, 0) * (radiance * solid_angle)).sum(1)
    result = sh_basis(torch.tensor(normals)) @ torch.tensor(lights)
    np.testing.assert_allclose(result.numpy(), expected, atol=2e-3)


def test_sh_constants_are_the_trackers() -> None:
    basis = sh_basis(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=torch.float64))
    np.testing.assert_allclose(basis[0], [0.28209, 0, 0, 1.02333, 0, 0, 0, 0, 2 * 0.24771], atol=1e-5)
    np.testing.assert_allclose(basis[1], [0.28209, 1.02333, 0, 0, 0, 0, 0, 0.42904, -0.24771], atol=1e-5)
    half = sh_basis(torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64) / 2**0.5)
    assert abs(float(half[0, 4]) - 0.85809 / 2) < 1e-5


def test_ambient_light_and_no_light_show_the_albedo() -> None:
    normals = torch.nn.functional.normalize(torch.randn(10, 3), dim=-1)
    albedo = torch.rand(10, 3)
    torch.testing.assert_close(sh_shading(normals, ambient_light()), torch.ones(10, 3))
    torch.testing.assert_close(shade(albedo, normals, ambient_light()), albedo)
    assert shade(albedo, normals, None) is albedo


def test_front_faces_are_those_that_turn_to_the_camera() -> None:
    vertices, faces = sphere()
    eyes = np.array([[3.0, 1.0, 2.0], [0.0, 0.2, -4.0], [1.2, 0.0, 0.0]])
    K = intrinsics_from_fov(40.0, 64, 48)
    clip = clip_from_world(K, look_at(eyes, [0.1, 0.0, 0.0], [0.0, 1.0, 0.0]), 64, 48, 0.05, 20.0)
    homogeneous = torch.cat([vertices[0], torch.ones(len(vertices[0]), 1)], dim=1)
    pos = homogeneous @ torch.tensor(clip, dtype=torch.float32).transpose(1, 2)
    corners = vertices[0][faces].double().numpy()
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    for b, eye in enumerate(eyes):
        toward = ((eye - corners[:, 0]) * normal).sum(1)
        clear = np.abs(toward) > 1e-5
        np.testing.assert_array_equal(front_faces(pos, faces)[b].numpy()[clear], (toward > 0)[clear])


def test_winding_is_right_for_faces_that_reach_behind_the_camera() -> None:
    # The floor, seen from above: it faces the camera although half of it lies behind.
    vertices = np.array([[-5.0, 0, -9], [0, 0, 9], [5, 0, -9]])
    clip = clip_from_world(
        intrinsics_from_fov(60.0, 32, 32), look_at([0, 1, 0], [0, 0.5, -2], [0, 1, 0]), 32, 32, 0.1, 50.0
    )
    pos = torch.tensor(np.c_[vertices, np.ones(3)] @ clip.T, dtype=torch.float32)[None]
    assert (pos[0, :, 3] < 0).any() and (pos[0, :, 3] > 0).any()
    assert front_faces(pos, torch.tensor([[0, 1, 2], [0, 2, 1]])).tolist() == [[True, False]]
