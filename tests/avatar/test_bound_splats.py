"""Splats in the frames of FLAME's faces, as GaussianAvatars writes them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting.avatar.bound_splats import face_frames, product, quats_of
from flame_fitting.avatar.splat_files import read_splats
from flame_fitting.avatar.splats import Splats, rotations_of
from flame_fitting.errors import InputError
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from tests.avatar.splat_writers import bound_columns, some_splats, write_ply


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head("open")


def parameters(head: HeadModel, steps: int = 2) -> dict[str, np.ndarray]:
    """Of two timesteps that differ in everything that moves."""
    rng = np.random.default_rng(1)
    sizes = {"expr": head.n_expr, "rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}
    values = {name: rng.normal(0, 0.1, (steps, size)).astype(np.float32) for name, size in sizes.items()}
    values["shape"] = rng.normal(0, 1, head.n_shape).astype(np.float32)
    return values | {"static_offset": rng.normal(0, 1e-3, (1, head.n_vertices, 3)).astype(np.float32)}


def read(path: Path, head: HeadModel, notes: list[str] | None = None) -> Splats:
    return read_splats(path.read_bytes(), path, "ply", ([] if notes is None else notes).append, lambda: head)


def written(folder: Path, head: HeadModel) -> tuple[Path, Splats, np.ndarray]:
    splats = some_splats(400)
    face = np.random.default_rng(2).integers(0, len(head.faces), len(splats))
    np.savez(folder / "flame_param.npz", **parameters(head))
    return write_ply(folder / "point_cloud.ply", bound_columns(splats, face)), splats, face


def test_they_move_with_their_faces(tmp_path: Path, head: HeadModel) -> None:
    path, splats, face = written(tmp_path, head)
    notes: list[str] = []
    found = read(path, head, notes)
    assert notes == ["splats bound to the faces of 'open', posed by timestep 0 of flame_param.npz"]
    values = {name: torch.as_tensor(value) for name, value in parameters(head).items()}
    shape, offset = values.pop("shape"), values.pop("static_offset")
    posed = head(shape, static_offset=offset, **values).vertices[0].double().numpy()
    # one by one, from the paper's words
    for k in range(0, len(splats), 37):
        a, b, c = posed[head.faces[face[k]].numpy()]
        edge, normal = b - a, np.cross(b - a, c - a)
        height = np.linalg.norm(normal) / np.linalg.norm(edge)
        scale = 0.5 * (np.linalg.norm(edge) + height)
        edge, normal = edge / np.linalg.norm(edge), normal / np.linalg.norm(normal)
        frame = np.stack([edge, normal, np.cross(edge, normal)], axis=1)
        np.testing.assert_allclose(found.means[k], (a + b + c) / 3 + scale * frame @ splats.means[k], atol=1e-6)
        np.testing.assert_allclose(found.rotations[k], frame @ splats.rotations[k], atol=1e-5)
        np.testing.assert_allclose(found.scales[k], scale * splats.scales[k], rtol=1e-4)
    np.testing.assert_allclose(found.sh, splats.sh, atol=1e-6)


def test_frames_are_right_handed_and_quaternions_turn_in_order(head: HeadModel) -> None:
    _, axes, scale = face_frames(head.v_template.double().numpy(), head.faces.numpy())
    np.testing.assert_allclose(np.linalg.det(axes), 1, atol=1e-9)
    assert (scale > 0).all()
    quats = quats_of(axes[:50])
    np.testing.assert_allclose(rotations_of(quats), axes[:50], atol=1e-12)
    np.testing.assert_allclose(rotations_of(product(quats, quats[::-1])), axes[:50] @ axes[:50][::-1], atol=1e-12)


def message(path: Path, head: HeadModel) -> str:
    with pytest.raises(InputError) as caught:
        read(path, head)
    assert str(path.parent) in str(caught.value)
    return str(caught.value)


def test_nothing_to_pose_them(tmp_path: Path, head: HeadModel) -> None:
    path = written(tmp_path, head)[0]
    (tmp_path / "flame_param.npz").unlink()
    assert "offsets in the frames of FLAME's faces (binding_0), and flame_param.npz" in message(path, head)
    (tmp_path / "flame_param.npz").write_bytes(b"no archive")
    assert "not a readable .npz" in message(path, head)
    np.savez(tmp_path / "flame_param.npz", shape=np.zeros(3))
    assert "lacks expr" in message(path, head)
    for name, value, said in (
        ("jaw_pose", np.zeros((2, 4)), "jaw_pose has 4 values, not 3"),
        ("expr", np.full((2, 3), np.nan), "expr holds values that are not numbers"),
        ("shape", np.ones(head.n_shape + 1), "shape has"),
        ("static_offset", np.zeros((1, head.n_vertices + 1, 3)), "static_offset has the shape"),
    ):
        np.savez(tmp_path / "flame_param.npz", **(parameters(head) | {name: value}))
        assert said in message(path, head)


def test_another_heads_faces(tmp_path: Path, head: HeadModel) -> None:
    path, splats, _ = written(tmp_path, head)
    write_ply(path, bound_columns(splats, np.full(len(splats), len(head.faces))))
    assert f"bound to face {len(head.faces)}, and the head model 'open' has {len(head.faces)}" in message(path, head)
    write_ply(path, bound_columns(splats, np.full(len(splats), -1)))
    assert "no numbers of faces" in message(path, head)
