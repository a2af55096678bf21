"""Splats as an avatar: loaded, cleaned, drawn in every shading, and a face is found on them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flame_fitting.avatar.bound_splats import product
from flame_fitting.avatar.face_finding import find_face
from flame_fitting.avatar.files_of import avatar_files, hash_avatar
from flame_fitting.avatar.head_calibration import head_avatar
from flame_fitting.avatar.interface import Avatar
from flame_fitting.avatar.lights import CLAY_GREY
from flame_fitting.avatar.loading import load_avatar
from flame_fitting.avatar.mesh import vertices_of
from flame_fitting.avatar.splat_avatar import SplatAvatar
from flame_fitting.avatar.splat_cleanup import seen_weights, without_floaters
from flame_fitting.avatar.splat_scene import coarse
from flame_fitting.avatar.splats import Splats
from flame_fitting.avatar.unit_frame import in_unit_frame
from flame_fitting.capture.camera import intrinsics_from_fov, look_at
from flame_fitting.errors import InputError
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.mediapipe_detector import MediaPipeConfig, MediaPipeDetector
from tests.avatar.mesh_splats import joined, splats_on
from tests.avatar.splat_cases import ball
from tests.avatar.splat_writers import columns, degree_of, some_splats, write_ply, write_splat, write_spz


def front(size: int = 96, distance: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    camera = look_at(np.array([[0, 0, distance]]), np.zeros(3), np.array([0.0, 1.0, 0.0]))
    return intrinsics_from_fov(25.0, size, size)[None], camera


def avatar_of(splats: Splats) -> SplatAvatar:
    return SplatAvatar(splats, Path("memory"), "", "memory")


@pytest.mark.parametrize("suffix", ["ply", "splat", "spz"])
def test_every_kind_of_file_is_an_avatar(tmp_path: Path, suffix: str) -> None:
    path, splats = tmp_path / f"a.{suffix}", ball(1500, degree=0)
    {"ply": lambda: write_ply(path, columns(splats)), "splat": lambda: write_splat(path, splats)}.get(
        suffix, lambda: write_spz(path, splats, 3)
    )()
    avatar = load_avatar(path)
    assert isinstance(avatar, SplatAvatar) and isinstance(avatar, Avatar)
    assert avatar.geometry == "splats" and avatar.format == suffix and avatar.has_color
    assert len(avatar.file_hash) == 64 and not avatar.notes and not avatar.warnings
    np.testing.assert_allclose(avatar.bounds, [[-1] * 3, [1] * 3], atol=0.06)
    assert avatar.seen_surface(avatar.points, np.eye(4)) is None
    drawn = avatar.draw(*front(), 96, 96)
    assert drawn.depth is not None and abs(drawn.depth[0, 48, 48] - 5.0) < 0.02
    path.write_bytes(path.read_bytes()[:-45])
    with pytest.raises(InputError, match=rf"a\.{suffix}"):
        load_avatar(path)


def test_what_poses_bound_splats_is_part_of_their_hash(tmp_path: Path) -> None:
    head = load_head("open")
    values = columns(some_splats(200)) | {"binding_0": np.arange(200) * 40}
    path = write_ply(tmp_path / "point_cloud.ply", values)
    with pytest.raises(InputError, match=r"flame_param\.npz"):
        load_avatar(path)
    sizes = {"shape": 3, "expr": 2, "rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}
    hashes = []
    for jaw in (0.0, 0.3):
        poses = {name: np.zeros((1, size)) for name, size in sizes.items()} | {"jaw_pose": np.array([[jaw, 0, 0]])}
        np.savez(tmp_path / "flame_param.npz", **poses)
        avatar = load_avatar(path, head=lambda: head)
        assert avatar_files(path) == [path, tmp_path / "flame_param.npz"]
        hashes.append((avatar.file_hash, hash_avatar(path), avatar.bounds.tobytes()))
    assert all(one != two for one, two in zip(*hashes, strict=True))
    np.testing.assert_allclose(avatar.points.mean(axis=0), head.v_template.numpy().mean(axis=0), atol=0.1)


def test_floaters_and_hidden_splats_go_and_pictures_stay() -> None:
    whole = ball(2000)
    inner = replace(ball(300, radius=0.5), opacities=np.full(300, 0.9, np.float32))
    far = ball(20, radius=0.05)
    far = replace(far, means=far.means + [0.0, 0.5, 2.5], scales=np.full((20, 3), 0.02, np.float32))
    faint = replace(ball(100, radius=1.2), opacities=np.full(100, 0.003, np.float32))
    notes: list[str] = []
    opaque = replace(whole, opacities=np.full(2000, 0.99, np.float32), scales=1.7 * whole.scales)  # without gaps
    found = without_floaters(joined(opaque, inner, far, faint), notes.append)
    assert 1980 < len(found) <= 2000 and (np.linalg.norm(found.means, axis=1) < 1.01).all()
    assert (np.linalg.norm(found.means, axis=1) > 0.99).all()
    assert "20 that float" in notes[0] and "100 too faint" in notes[0]
    one, two = (avatar_of(splats).draw(*front(), 96, 96, outputs=("image",)).image for splats in (found, opaque))
    assert np.abs(one - two).mean() < 1e-3
    notes = []
    assert len(without_floaters(whole, notes.append)) == 2000 and not notes
    assert seen_weights(whole).min() > 0.02


def test_a_wisp_apart_is_no_floater() -> None:
    """Large groups stay where nothing links them, such as a head above a separate body."""
    other = ball(800, radius=0.6)
    other = replace(other, means=other.means + [0.0, -2.0, 0.0])
    assert len(without_floaters(joined(ball(2000), other), [].append)) == 2800


def test_shadings() -> None:
    splats = degree_of(ball(3000), 0)
    splats = replace(splats, opacities=np.full(3000, 0.99, np.float32))
    K, camera = front()
    drawn = {name: avatar_of(splats).draw(K, camera, 96, 96, name) for name in ("unlit", "lit", "clay")}
    inside = drawn["unlit"].alpha[0] > 0.99
    clay = drawn["clay"].image[0][:, inside]
    np.testing.assert_allclose(clay[0], clay[1], atol=1e-6)
    assert 0.2 < clay.mean() < CLAY_GREY * 1.25 and clay.std() > 0.02
    # lit is the base colour times the light that clay shows
    light = (clay / CLAY_GREY).mean(axis=0)
    expected = drawn["unlit"].image[0][:, inside] * light
    assert np.abs(drawn["lit"].image[0][:, inside] - expected).mean() < 0.02
    for name in ("alpha", "depth", "normal"):
        np.testing.assert_array_equal(getattr(drawn["lit"], name), getattr(drawn["unlit"], name))
    with pytest.raises(ValueError, match="shading"):
        avatar_of(splats).draw(K, camera, 96, 96, "painted")


def test_lights_stand_still_where_they_are_told_to() -> None:
    avatar = avatar_of(replace(ball(3000), opacities=np.full(3000, 0.99, np.float32)))
    eyes = 6.0 * np.array([[0.0, 0, 1], [1, 0, 0]])
    cameras = look_at(eyes, np.zeros(3), np.array([0.0, 1.0, 0.0]))
    K = np.repeat(front()[0], 2, axis=0)
    moving = avatar.draw(K, cameras, 96, 96, "clay", outputs=("image",)).image
    still = avatar.draw(K, cameras, 96, 96, "clay", light_rotation=np.eye(3), outputs=("image",)).image
    assert np.abs(moving[0] - moving[1]).mean() < 0.01
    np.testing.assert_allclose(still[0], moving[0], atol=1e-6)
    assert np.abs(still[0] - still[1]).mean() > 0.03


def test_the_outside_is_where_the_sky_is_and_hollows_are_darker() -> None:
    splats = ball(3000)
    quats = splats.quats.copy()
    quats[::2] = product(quats[::2], np.tile([0.0, 1.0, 0.0, 0.0], (1500, 1)))  # the other side up
    outside = avatar_of(replace(splats, quats=quats)).outside
    cosine = np.einsum("nc,nc->n", outside.normals, splats.means)
    assert cosine.min() > 0.99 and outside.open_sky.min() > 0.9
    bowl = splats.taken(splats.means[:, 2] < -0.2)
    shell = avatar_of(joined(bowl, replace(bowl, means=1.1 * bowl.means))).outside  # thick, so that it has an inside
    bottom = bowl.means[:, 2] < -0.9
    inner, outer = shell.open_sky[: len(bowl)][bottom], shell.open_sky[len(bowl) :][bottom]
    assert inner.mean() < 0.8 < outer.mean()
    assert (shell.normals[: len(bowl)][bottom][:, 2] > 0.9).mean() > 0.9


def test_a_quick_look_is_much_the_same() -> None:
    head = splats_of_the_open_head()
    avatar = in_unit_frame(avatar_of(head))[0]
    K, camera = front(128, 5.0)
    quick = avatar.draw(K, camera, 128, 128, supersample=1, outputs=("image",)).image
    whole = avatar.draw(K, camera, 128, 128, outputs=("image",)).image
    assert 0 < np.abs(quick - whole).mean() < 0.02
    assert len(coarse(head, 500)) == 500 and len(coarse(head, 10**6)) == len(head)


def test_the_unit_frame_changes_no_picture() -> None:
    splats = ball(1500).normalized(np.array([-2e4, 3e4, 1e4]), 1e-3)
    avatar = avatar_of(splats)
    unit, world_from_unit = in_unit_frame(avatar)
    np.testing.assert_allclose(unit.bounds, [[-1] * 3, [1] * 3], atol=0.01)
    drawn, expected = (a.draw(*front(), 96, 96) for a in (unit, avatar_of(ball(1500))))
    assert np.abs(drawn.image - expected.image).mean() < 2e-3
    np.testing.assert_allclose(world_from_unit[:3, 3], [2e7, -3e7, -1e7], rtol=1e-3)


def test_plain_colours_are_none() -> None:
    assert avatar_of(ball(100)).has_color
    plain = degree_of(ball(100), 0)
    assert not avatar_of(replace(plain, sh=np.full_like(plain.sh, 0.3))).has_color


def splats_of_the_open_head() -> Splats:
    head = load_head("open")
    mesh = head_avatar(head, head.v_template.numpy().astype(np.float64), "textured")
    part = mesh.parts[0]
    rows = np.clip(((1 - part.uv[:, 1]) * len(part.texture)).astype(int), 0, len(part.texture) - 1)
    columns_ = np.clip((part.uv[:, 0] * part.texture.shape[1]).astype(int), 0, part.texture.shape[1] - 1)
    colors = part.texture[rows, columns_, :3] / 255.0
    return splats_on(vertices_of(mesh.parts), mesh.faces, colors, 25_000)


def test_a_face_is_found_and_the_surface_is_the_heads() -> None:
    head, detector = load_head("open"), MediaPipeDetector(config=MediaPipeConfig(jitter=2))
    splats = splats_of_the_open_head()
    found = find_face(in_unit_frame(avatar_of(splats))[0], detector, head)
    assert found.residual_relative < 0.06
    unit_from_world = np.linalg.inv(in_unit_frame(avatar_of(splats))[1])
    np.testing.assert_allclose(found.head_from_world @ unit_from_world, np.eye(4), atol=0.04)
    mesh = head_avatar(head, head.v_template.numpy().astype(np.float64), "textured")
    K, camera = front(256, 0.75)
    one, two = (avatar.draw(K, camera, 256, 256) for avatar in (avatar_of(splats), mesh))
    both = (one.depth > 0) & (two.depth > 0)
    assert np.median(np.abs(one.depth - two.depth)[both]) < 1e-4  # a tenth of a millimetre
    assert abs(np.median((one.depth - two.depth)[both])) < 5e-5
    assert both.sum() > 0.97 * (two.depth > 0).sum()
