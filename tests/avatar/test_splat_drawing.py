"""Splats are drawn as gsplat draws them, and their surface lies where the surface is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting.avatar.splat_kernels import LEAST_ALPHA, LEAST_TRANSMITTANCE, MOST_ALPHA
from flame_fitting.avatar.splat_scene import build_scene, draw_splats
from flame_fitting.avatar.splats import Splats
from flame_fitting.capture.camera import intrinsics_from_fov, look_at, pixel_rays
from flame_fitting.render.jit import set_threads
from tests.avatar.splat_cases import BACKGROUND, NEAR, SIZE, ball, cameras, mixture
from tests.avatar.splat_writers import degree_of

GOLDEN = Path(__file__).parent / "splat_files" / "golden.npz"
"""Of scripts/make_splat_golden.py, on a GPU."""


def reference(splats: Splats) -> tuple[np.ndarray, np.ndarray]:
    """Image (B, 3, H, W) and alpha by gsplat's own PyTorch functions, blended densely: every splat at every pixel."""
    impl = pytest.importorskip("gsplat.cuda._torch_impl")
    K, views = (torch.as_tensor(value) for value in cameras())
    width, height = SIZE
    means, quats, scales = (torch.as_tensor(x).double() for x in (splats.means, splats.quats, splats.scales))
    sh, opacities = torch.as_tensor(splats.sh).double(), torch.as_tensor(splats.opacities).double()
    covariances = impl._quat_scale_to_covar_preci(quats, scales, compute_preci=False)[0]
    radii, centers, depths, conics, factor = impl._fully_fused_projection(
        means, covariances, views, K, width, height, near_plane=NEAR, calc_compensations=splats.antialiased
    )
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    images, alphas = [], []
    for b in range(len(K)):
        eye = -views[b, :3, :3].T @ views[b, :3, 3]
        colors = torch.clamp_min(impl._spherical_harmonics(splats.degree, means - eye, sh) + 0.5, 0.0)
        left, total = torch.ones(height, width).double(), torch.zeros(height, width, 3).double()
        done = torch.zeros(height, width, dtype=torch.bool)
        for n in torch.argsort(depths[b], stable=True).tolist():
            if (radii[b, n] <= 0).any():
                continue
            dx, dy = centers[b, n, 0] - columns, centers[b, n, 1] - rows
            power = 0.5 * (conics[b, n, 0] * dx**2 + conics[b, n, 2] * dy**2) + conics[b, n, 1] * dx * dy
            opacity = opacities[n] * (factor[b, n] if splats.antialiased else 1.0)
            alpha = torch.clamp_max(opacity * torch.exp(-power), MOST_ALPHA)
            alpha[alpha < LEAST_ALPHA] = 0.0
            done |= left * (1 - alpha) <= LEAST_TRANSMITTANCE
            alpha[done] = 0.0
            total += (left * alpha)[..., None] * colors[n]
            left *= 1 - alpha
        total += left[..., None] * torch.tensor(BACKGROUND).double()
        images.append(total.clamp(0, 1).permute(2, 0, 1).numpy())
        alphas.append(1 - left.numpy())
    return np.stack(images), np.stack(alphas)


@pytest.mark.parametrize(("degree", "antialiased"), [(0, False), (1, False), (2, True), (3, False)])
def test_as_gsplats_own_reference(degree: int, antialiased: bool) -> None:
    splats = degree_of(replace(mixture(), antialiased=antialiased), degree)
    scene = replace(build_scene(splats), near=NEAR)
    views = draw_splats(scene, *cameras(), *SIZE, BACKGROUND, outputs=("image", "alpha"))
    assert views.depth is None and views.normal is None
    image, alpha = reference(splats)
    apart = np.abs(views.image - image)
    assert apart.mean() < 1e-5 and apart.max() < 1e-3
    assert np.abs(views.alpha - alpha).max() < 1e-3
    assert 0.3 < alpha.mean() < 0.9  # there is something to see, and not everywhere


def test_as_gsplat_on_a_gpu() -> None:
    if not GOLDEN.is_file():
        pytest.skip("no golden pictures: scripts/make_splat_golden.py makes them on a GPU")
    for name, image in np.load(GOLDEN).items():
        splats = replace(mixture(), antialiased=name == "antialiased")
        scene = replace(build_scene(splats), near=NEAR)
        apart = np.abs(draw_splats(scene, *cameras(), *SIZE, BACKGROUND, outputs=("image",)).image - image)
        assert apart.mean() <= 0.5 / 255 and (apart.max(axis=1) <= 2 / 255).mean() >= 0.999


def test_a_lower_degree_is_the_first_coefficients() -> None:
    lower = draw_splats(build_scene(mixture(), 0), *cameras(), *SIZE, outputs=("image",))
    same = draw_splats(build_scene(degree_of(mixture(), 0)), *cameras(), *SIZE, outputs=("image",))
    np.testing.assert_array_equal(lower.image, same.image)


def test_threads_views_and_the_frame_change_nothing() -> None:
    scene = build_scene(mixture())
    whole = draw_splats(scene, *cameras(), *SIZE)
    try:
        set_threads(3)
        again = draw_splats(scene, *cameras(), *SIZE)
    finally:
        set_threads(None)
    for name in ("image", "alpha", "depth", "normal"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    K, views = cameras()
    single = draw_splats(scene, K[1:2], views[1:2], *SIZE, outputs=("depth",))
    np.testing.assert_array_equal(single.depth[0], whole.depth[1])
    center, scale = np.array([10.0, -4.0, 2.0]), 0.02
    moved = views.copy()
    moved[:, :3, 3] = (views[:, :3, :3] @ center + views[:, :3, 3]) / scale
    other = draw_splats(build_scene(mixture().normalized(center, scale)), K, moved, *SIZE)
    assert np.abs(other.image - whole.image).max() < 1e-5
    np.testing.assert_allclose(other.depth * scale, whole.depth, atol=1e-4)


def round_views(radius: float, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    eyes = 6 * radius * np.array([[0, 0, 1], [0.8, 0.6, 0], [-0.6, 0, -0.8]])
    return np.stack([intrinsics_from_fov(25.0, size, size)] * 3), look_at(eyes, np.zeros(3), np.eye(3)[[1, 2, 1]])


@pytest.mark.parametrize("opacity", [0.5, 0.99])
@pytest.mark.parametrize(("thickness", "share"), [(1e-4, 0.03), (0.1, 0.06), (0.3, 0.06)])
def test_depth_and_normal_of_a_ball(opacity: float, thickness: float, share: float) -> None:
    """Planes that touch a ball lie outside it by about `sag`, and its nearest splats would pull to the camera."""
    radius, size = 100.0, 128
    splats = ball(2000, thickness=thickness, radius=radius)
    splats = replace(splats, opacities=np.full(2000, opacity, np.float32))
    K, cameras_ = round_views(radius)
    views = draw_splats(build_scene(splats), K, cameras_, size, size)
    columns, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    pixels = np.stack([columns, rows], axis=-1).reshape(-1, 2)
    sag = (0.75 * radius * np.sqrt(4 * np.pi / 2000)) ** 2 / radius
    for b in range(3):
        eye, rays = pixel_rays(pixels, K[b], cameras_[b])
        depth, normal = views.depth[b].reshape(-1), views.normal[b].reshape(-1, 3)
        points = eye + (depth / (rays @ cameras_[b][2, :3]))[:, None] * rays
        outward = points / np.linalg.norm(points, axis=1, keepdims=True)
        inner = (depth > 0) & (-np.einsum("nc,nc->n", outward, rays) > 0.5)
        assert inner.sum() > 2000
        height = np.linalg.norm(points[inner], axis=1) - radius
        assert np.median(np.abs(height)) < share * sag
        np.testing.assert_allclose(np.linalg.norm(normal[inner], axis=1), 1, atol=1e-5)
        cosine = np.einsum("nc,nc->n", normal[inner], outward[inner])
        assert np.median(np.degrees(np.arccos(cosine.clip(-1, 1)))) < 5.0


def test_a_surface_behind_mist_and_none_where_little_is_covered() -> None:
    wall = ball(2000)
    opaque = replace(wall, opacities=np.full(2000, 0.95, np.float32))
    mist = replace(wall, means=wall.means * 1.6, opacities=np.full(2000, 0.04, np.float32))
    names = ("means", "scales", "quats", "opacities", "sh")
    both = Splats(**{name: np.concatenate([getattr(opaque, name), getattr(mist, name)]) for name in names})
    K, views = round_views(1.0)
    alone = draw_splats(build_scene(opaque), K, views, 128, 128)
    veiled = draw_splats(build_scene(both), K, views, 128, 128)
    seen = (alone.depth > 0) & (veiled.depth > 0)
    assert np.median(np.abs(veiled.depth - alone.depth)[seen]) < 2e-3
    only = draw_splats(build_scene(mist), K, views, 128, 128)
    assert (only.alpha.max() < 0.5) and (only.depth == 0).all() and (only.normal == 0).all()


def test_weights_tell_who_is_seen() -> None:
    outer, inner = ball(2000), ball(500, radius=0.5)
    opaque = replace(outer, opacities=np.full(2000, 0.999, np.float32))
    names = ("means", "scales", "quats", "opacities", "sh")
    both = Splats(**{name: np.concatenate([getattr(opaque, name), getattr(inner, name)]) for name in names})
    weights = np.zeros(len(both))
    draw_splats(build_scene(both), *round_views(1.0), 128, 128, outputs=(), weights=weights)
    assert weights[:2000].max() > 0.5 and weights[2000:].max() < 0.02
    assert 0.5 < (weights[:2000] > 0.05).mean() < 1.0


def test_nothing_before_the_camera() -> None:
    K, views = cameras()
    behind = views.copy()
    behind[:, 2, 3] -= 100.0
    drawn = draw_splats(build_scene(mixture()), K, behind, *SIZE, BACKGROUND)
    assert (drawn.alpha == 0).all() and (drawn.depth == 0).all()
    np.testing.assert_allclose(drawn.image[0, :, 5, 5], BACKGROUND, atol=1e-6)
