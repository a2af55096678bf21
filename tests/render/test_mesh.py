"""Whole renders: buffers of a mesh, texture coordinates, gutters, backends."""

import numpy as np
import pytest
import torch
import trimesh

from flame_fitting.capture.camera import clip_from_world, intrinsics_from_fov, look_at, project
from flame_fitting.errors import InputError
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.render.gutter import fill_gutter, gutter_sources
from flame_fitting.render.mesh import clip_matrix, render_mesh
from flame_fitting.render.shading import ambient_light
from flame_fitting.render.texturing import rasterize_uv, uv_to_texture

RASTERIZER = make_rasterizer("cpu")


def cameras(width: int, height: int) -> tuple[torch.Tensor, torch.Tensor]:
    K = np.stack([intrinsics_from_fov(35.0, width, height)] * 2)
    K[1, 0, 2] += 7.5
    K[1, 1, 2] -= 4.0
    w2c = look_at([[0.4, 0.3, 3.0], [-2.5, 0.5, 1.5]], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    return torch.tensor(K, dtype=torch.float32), torch.tensor(w2c, dtype=torch.float32)


def sphere() -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions=4)
    return torch.tensor(np.asarray(mesh.vertices), dtype=torch.float32), torch.tensor(np.asarray(mesh.faces))


def test_clip_matrix_equals_the_camera_module() -> None:
    K, w2c = cameras(64, 48)
    expected = clip_from_world(K.numpy(), w2c.numpy(), 64, 48, 0.3, 9.0)
    np.testing.assert_allclose(clip_matrix(K, w2c, (48, 64), 0.3, 9.0), expected, atol=1e-5)
    per_view = clip_matrix(K, w2c, (48, 64), torch.tensor([0.3, 0.5]), torch.tensor([9.0, 7.0]))
    np.testing.assert_allclose(per_view[1], clip_from_world(K[1], w2c[1], 64, 48, 0.5, 7.0), atol=1e-5)


def test_buffers_of_a_sphere_are_where_the_camera_sees_it() -> None:
    width, height = 72, 56
    K, w2c = cameras(width, height)
    vertices, faces = sphere()
    buffers = render_mesh(RASTERIZER, vertices[None], faces, K, w2c, (height, width), vertex_colors=vertices[None])
    y, x = np.mgrid[:height, :width] + 0.5
    for b in range(2):
        eye = -w2c[b, :3, :3].T.double().numpy() @ w2c[b, :3, 3].double().numpy()
        ray = np.linalg.inv(K[b].double().numpy()) @ np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
        ray = (w2c[b, :3, :3].double().numpy().T @ ray).T  # length 1 along the camera's z
        half = ray @ eye / (ray**2).sum(1)
        discriminant = half**2 - ((eye**2).sum() - 1) / (ray**2).sum(1)
        inner = (discriminant > 0.02).reshape(height, width)
        outer = (discriminant < -0.02).reshape(height, width)
        alpha = buffers["alpha"][b, ..., 0].numpy()
        assert (alpha[inner] == 1).all() and (alpha[outer] == 0).all()
        t = (-half - np.sqrt(np.maximum(discriminant, 0))).reshape(height, width)
        point = (eye + t[..., None] * ray.reshape(height, width, 3))[inner]
        np.testing.assert_allclose(buffers["depth"][b, ..., 0].numpy()[inner], t[inner], atol=0.02)
        np.testing.assert_allclose(buffers["normal"][b].numpy()[inner], point, atol=0.02)
        np.testing.assert_allclose(buffers["color"][b].numpy()[inner], point, atol=0.02)
    # Row 0 is the top: the topmost vertex is drawn where the camera module projects it.
    top = int(vertices[:, 1].argmax())
    _, v, _ = project(vertices[top : top + 1].numpy(), K[0].numpy(), w2c[0].numpy())[0]
    assert v < height / 2
    rows = np.flatnonzero((buffers["alpha"][0, ..., 0] > 0.5).any(dim=1).numpy())
    assert abs(rows[0] - v) < 4


def test_culling_hides_the_inside_and_light_and_background_are_applied() -> None:
    K, w2c = cameras(40, 40)
    vertices, faces = sphere()
    args = (RASTERIZER, vertices[None], faces.flip(1), K, w2c, (40, 40))
    white = torch.ones(1, len(vertices), 3)
    inside_out = render_mesh(*args, vertex_colors=white)
    assert inside_out["depth"].max() > 3.0  # the far wall, from inside
    both = render_mesh(*args, vertex_colors=white, cull=False)
    assert both["depth"][0, 20, 20] < 2.5
    args = (RASTERIZER, vertices[None], faces, K, w2c, (40, 40))
    lit = render_mesh(*args, vertex_colors=white, lights=2 * ambient_light(), background=torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(lit["color"][0, 20, 20], torch.full((3,), 2.0))
    torch.testing.assert_close(lit["color"][0, 0, 0], torch.tensor([0.1, 0.2, 0.3]))


def test_gradients_reach_vertices_cameras_texture_and_light() -> None:
    K, w2c = cameras(40, 32)
    vertices, faces = sphere()
    uv = vertices[:, :2] * 0.4 + 0.5
    leaves = {
        "vertices": vertices[None].clone(),
        "K": K,
        "w2c": w2c,
        "texture": torch.rand(1, 32, 32, 3),
        "lights": ambient_light(),
    }
    leaves = {k: v.clone().requires_grad_(True) for k, v in leaves.items()}
    buffers = render_mesh(
        RASTERIZER, leaves["vertices"], faces, leaves["K"], leaves["w2c"], (32, 40),
        uv=uv, uv_faces=faces, texture=leaves["texture"], lights=leaves["lights"],
        topology=RASTERIZER.topology(faces),
    )  # fmt: skip
    target = torch.rand_like(buffers["color"])
    loss = (buffers["color"] - target).square().sum() + buffers["depth"].sum() + buffers["normal"][..., 0].sum()
    loss.backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None and leaf.grad.isfinite().all() and leaf.grad.abs().sum() > 0, name


def test_texture_rows_run_down_while_mesh_v_runs_up() -> None:
    # A square toward the camera with the usual uv: the picture appears upright.
    vertices = torch.tensor([[[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]])
    uv = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    K = torch.tensor(intrinsics_from_fov(2 * np.degrees(np.arctan(0.5)), 16, 16), dtype=torch.float32)[None]
    w2c = torch.tensor(look_at([0, 0, 2.0], [0, 0, 0], [0, 1, 0]), dtype=torch.float32)[None]
    texture = torch.rand(1, 16, 16, 3)
    out = render_mesh(
        RASTERIZER, vertices, faces, K, w2c, (16, 16), uv=uv, uv_faces=faces, texture=texture, antialias=False
    )
    torch.testing.assert_close(out["color"], texture, atol=1e-4, rtol=0)
    assert torch.equal(uv_to_texture(uv_to_texture(uv)), uv)


def test_texel_map_gives_the_surface_point_of_each_texel() -> None:
    uv = torch.tensor([[0.1, 0.1], [0.9, 0.15], [0.5, 0.9], [0.95, 0.95]])
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    texels = rasterize_uv(RASTERIZER, uv, faces, (40, 32))
    assert 0.2 < texels.covered.float().mean() < 0.8
    row, column = torch.nonzero(texels.covered, as_tuple=True)
    centre = torch.stack([(column + 0.5) / 32, 1 - (row + 0.5) / 40], dim=-1)
    found = texels.interpolate(uv, faces)[row, column]
    torch.testing.assert_close(found, centre, atol=4e-3, rtol=0)  # snapping: 1/16 texel at borders
    assert (texels.barycentric[~texels.covered] == 0).all()


def test_gutter_repeats_the_nearest_texel() -> None:
    torch.manual_seed(0)
    covered = torch.zeros(24, 24, dtype=torch.bool)
    covered[5:10, 6:12] = True
    covered[15, 20] = True
    tex = torch.rand(1, 24, 24, 3)
    full = fill_gutter(tex, gutter_sources(covered))
    assert torch.equal(full[:, covered], tex[:, covered])
    inside = torch.nonzero(covered).float()
    for row, column in ((0, 0), (12, 9), (20, 23), (7, 3)):
        distance = (inside - torch.tensor([row, column]).float()).norm(dim=1)
        nearest = inside[distance == distance.min()].long()
        assert any(torch.equal(full[0, row, column], tex[0, r, c]) for r, c in nearest)
    near = fill_gutter(tex, gutter_sources(covered, pixels=2))
    assert torch.equal(near[0, 3, 8], tex[0, 5, 8]) and torch.equal(near[0, 2, 8], tex[0, 2, 8])
    assert torch.equal(fill_gutter(tex, gutter_sources(torch.zeros_like(covered))), tex)


def test_gutter_keeps_the_background_out_of_mip_levels() -> None:
    covered = torch.zeros(64, 64, dtype=torch.bool)
    covered[21:43, 21:43] = True
    tex = torch.where(covered[None, ..., None], 0.8, 0.0).expand(1, 64, 64, 3).contiguous()
    uv = torch.tensor([0.345, 0.5]).expand(1, 1, 1, 2).contiguous()
    uv_da = torch.tensor([1 / 16, 0.0, 0.0, 1 / 16]).expand(1, 1, 1, 4).contiguous()  # four texels wide
    assert RASTERIZER.texture(tex, uv, uv_da).max() < 0.75
    torch.testing.assert_close(
        RASTERIZER.texture(fill_gutter(tex, gutter_sources(covered)), uv, uv_da).max(), torch.tensor(0.8)
    )


def test_gutter_gradients_go_to_their_source() -> None:
    covered = torch.zeros(8, 8, dtype=torch.bool)
    covered[3:5, 3:5] = True
    tex = torch.rand(1, 8, 8, 2, requires_grad=True)
    fill_gutter(tex, gutter_sources(covered)).sum().backward()
    assert float(tex.grad.sum()) == 128 and (tex.grad[:, ~covered] == 0).all()


def test_backends() -> None:
    assert make_rasterizer("auto").device.type in ("cpu", "cuda")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--device cpu"):
            make_rasterizer("cuda")
    with pytest.raises(InputError, match="unknown device"):
        make_rasterizer("gpu0")
