"""Splats under maps, their colours under rotations, and files that hold them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from flame_fitting.avatar.bound_splats import bound_splats, product, quats_of
from flame_fitting.avatar.splat_files import read_splats
from flame_fitting.avatar.splat_kernels import _color
from flame_fitting.avatar.splat_moving import moved, placed, polar_rotations, sh_basis, turned_sh
from flame_fitting.avatar.splat_ply import splat_ply
from flame_fitting.avatar.splat_splitting import split
from flame_fitting.avatar.splats import Splats
from flame_fitting.head.loading import load_head
from tests.avatar.splat_writers import some_splats
from tests.avatar.test_bound_splats import parameters
from tests.synthetic import similarity

COUNT = 50


def rotations(count: int = COUNT, seed: int = 0) -> np.ndarray:
    return Rotation.random(count, random_state=seed).as_matrix()


def covariances(splats: Splats) -> np.ndarray:
    axes = splats.rotations * splats.scales[:, None, :].astype(np.float64)
    return axes @ axes.swapaxes(1, 2)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_turned_colours_are_seen_from_turned_directions(degree: int) -> None:
    splats, turns = some_splats(COUNT, degree), rotations()
    directions = rotations(7, 1)[:, 0]
    before = np.einsum("dk,nkc->ndc", sh_basis(directions, degree), splats.sh)
    there = np.einsum("nij,dj->ndi", turns, directions)
    after = np.einsum("ndk,nkc->ndc", sh_basis(there, degree), turned_sh(splats.sh, turns))
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_the_basis_is_that_of_drawing() -> None:
    splats = some_splats(COUNT)
    for d, sh in zip(rotations()[:, 0], splats.sh, strict=True):
        drawn = [_color(sh.astype(np.float64), *d, channel) for channel in range(3)]
        np.testing.assert_allclose(np.maximum(0.5 + sh_basis(d, 3) @ sh, 0), drawn, atol=1e-6)


def test_covariances_go_through_their_maps() -> None:
    splats = some_splats(COUNT)
    maps = rotations() @ (np.eye(3) + 0.3 * np.random.default_rng(1).normal(size=(COUNT, 3, 3)))
    maps *= np.where(np.linalg.det(maps) < 0, -1, 1)[:, None, None]
    out = moved(splats, splats.means + 1, maps)
    wanted = maps @ covariances(splats) @ maps.swapaxes(1, 2)
    np.testing.assert_allclose(covariances(out), wanted, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(out.sh, turned_sh(splats.sh, polar_rotations(maps)))
    np.testing.assert_allclose(np.linalg.norm(out.quats, axis=1), 1, atol=1e-6)


def test_what_stays_is_the_same_and_what_turns_keeps_its_size() -> None:
    splats, turns = some_splats(COUNT), rotations()
    still = moved(splats, splats.means, np.tile(np.eye(3), (COUNT, 1, 1)))
    for name in ("means", "scales", "quats", "sh"):
        np.testing.assert_array_equal(getattr(still, name), getattr(splats, name))
    turned = moved(splats, splats.means, turns)
    np.testing.assert_array_equal(turned.scales, splats.scales)
    np.testing.assert_allclose(turned.rotations, turns @ splats.rotations, atol=1e-6)


@pytest.mark.parametrize("noise", [1e-8, 1e-7, 1e-6])
def test_what_all_but_stays_keeps_its_shape(noise: float) -> None:
    splats = some_splats(COUNT)
    maps = np.eye(3) + noise * np.random.default_rng(5).uniform(-1, 1, (COUNT, 3, 3))
    out = moved(splats, splats.means, maps)
    np.testing.assert_allclose(covariances(out), covariances(splats), rtol=1e-3, atol=1e-8)


def test_placing_goes_there_and_back() -> None:
    splats, there = some_splats(COUNT), similarity()
    back = placed(placed(splats, there), np.linalg.inv(there))
    np.testing.assert_allclose(back.means, splats.means, atol=1e-12)
    np.testing.assert_allclose(back.scales, splats.scales, rtol=1e-5)
    np.testing.assert_allclose(back.rotations, splats.rotations, atol=1e-5)
    np.testing.assert_allclose(back.sh, splats.sh, atol=1e-5)


@pytest.mark.parametrize("degree", [0, 3])
def test_what_is_written_is_read(degree: int) -> None:
    splats = some_splats(COUNT, degree)
    found = read_splats(splat_ply(splats), Path("a.ply"), "ply", lambda text: None)
    assert isinstance(found, Splats) and found.degree == degree
    for name in ("means", "scales", "opacities", "sh"):
        np.testing.assert_allclose(getattr(found, name), getattr(splats, name), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(found.rotations, splats.rotations, atol=1e-6)
    np.testing.assert_array_equal(found.row, np.arange(COUNT))
    filled = read_splats(splat_ply(splats, degree=3), Path("a.ply"), "ply", lambda text: None)
    np.testing.assert_allclose(filled.sh[:, : splats.sh.shape[1]], splats.sh, atol=1e-6)
    assert filled.degree == 3 and not filled.sh[:, splats.sh.shape[1] :].any()


def test_whole_and_empty_opacities_are_numbers_in_a_file() -> None:
    splats = replace(some_splats(3), opacities=np.array([0.0, 1.0, 0.5], np.float32))
    found = read_splats(splat_ply(splats), Path("a.ply"), "ply", lambda text: None)
    np.testing.assert_allclose(found.opacities, splats.opacities, atol=1e-6)


def test_bound_splats_come_back_to_their_places(tmp_path: Path) -> None:
    head = load_head("open")
    given = parameters(head, 1)
    np.savez(tmp_path / "flame_param.npz", **given)
    values = {name: torch.as_tensor(value) for name, value in given.items()}
    shape, offset = values.pop("shape"), values.pop("static_offset")
    posed = head(shape, static_offset=offset, **values).vertices[0].double().numpy()
    splats = replace(some_splats(400), means=0.1 * some_splats(400).means)
    face = np.random.default_rng(2).integers(0, len(head.faces), len(splats))
    bound = bound_splats(splats, posed, head.faces.numpy(), face)
    path = tmp_path / "point_cloud.ply"
    path.write_bytes(splat_ply(bound, face))
    found = read_splats(path.read_bytes(), path, "ply", lambda text: None, lambda: head)
    np.testing.assert_allclose(found.means, splats.means, atol=1e-6)
    np.testing.assert_allclose(found.scales, splats.scales, rtol=1e-4)
    np.testing.assert_allclose(found.rotations, splats.rotations, atol=1e-5)
    np.testing.assert_allclose(found.sh, splats.sh, atol=1e-6)


def test_split_splats_look_alike() -> None:
    from flame_fitting.avatar.splat_avatar import SplatAvatar
    from flame_fitting.capture.camera import intrinsics_from_fov, look_at

    one = replace(
        some_splats(3, 0),
        means=np.array([[-0.5, 0, 0], [0.0, 0, 0], [0.5, 0, 0]]),
        scales=np.array([[0.15, 0.08, 0.004], [0.1, 0.1, 0.002], [0.01, 0.01, 0.01]], np.float32),
        opacities=np.array([0.98, 0.5, 0.9], np.float32),
        quats=np.tile(np.array([1, 0, 0, 0], np.float32), (3, 1)),  # seen from before, as skin is
        row=np.arange(3),
    )
    many = split(one, 0.05)
    assert many.scales.max() < 0.05 and (many.row == 2).sum() == 1 and len(many) > 20
    camera, K = look_at([0, 0, 3], [0, 0, 0], [0, 1, 0])[None], intrinsics_from_fov(30.0, 200, 160)[None]
    before, after = (
        SplatAvatar(each, Path("m"), "", "ply").draw(K, camera, 200, 160, outputs=("image",)).image
        for each in (one, many)
    )
    assert np.abs(after - before).mean() < 0.004 and np.abs(after - before).max() < 0.12


def test_products_turn_one_after_the_other() -> None:
    a, b = rotations(), rotations(seed=1)
    np.testing.assert_allclose(np.abs((product(quats_of(a), quats_of(b)) * quats_of(a @ b)).sum(axis=1)), 1, atol=1e-9)
