"""The demo avatar: its truth, its surface, its texture, and that a seed gives the same again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting.avatar.demo_head import outside_offsets
from flame_fitting.avatar.demo_remesh import remesh
from flame_fitting.avatar.loading import load_avatar
from flame_fitting.errors import InputError
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.make_demo_avatar import MakeDemoAvatarConfig, make_demo_avatar
from flame_fitting.manifest import read_manifest
from flame_fitting.maths.closest import TriangleTree

SIZE = 256


def make(folder: Path, seed: int) -> Path:
    return make_demo_avatar(MakeDemoAvatarConfig(output=folder, seed=seed, texture_size=SIZE))


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head("open")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("demo") / "avatar", 3)


@pytest.fixture(scope="module")
def truth(made: Path) -> dict[str, np.ndarray]:
    with np.load(made.parent / "ground_truth.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def test_truth_lies_on_the_surface(made: Path, truth: dict[str, np.ndarray], head: HeadModel) -> None:
    avatar = load_avatar(made)
    distance = TriangleTree(avatar.vertices, avatar.faces).closest(truth["vertices"]).distance
    distance = distance * float(truth["mm_per_unit"])
    assert np.median(distance) < 0.1 and np.percentile(distance, 95) < 0.6
    face = head.regions["face"].numpy()
    assert np.median(distance[face]) < 0.1


def test_avatar_lies_on_the_true_surface(made: Path, truth: dict[str, np.ndarray]) -> None:
    avatar = load_avatar(made)
    tree = TriangleTree(truth["vertices"], truth["faces"].astype(np.int64))
    distance = tree.closest(avatar.vertices).distance * float(truth["mm_per_unit"])
    assert distance.max() < 1e-2
    assert len(avatar.vertices) != len(truth["vertices"])


def test_truth_is_the_head_model(truth: dict[str, np.ndarray], head: HeadModel) -> None:
    names = ("expr", "neck_pose", "jaw_pose", "eyes_pose", "static_offset", "rotation", "translation")
    parameters = {name: torch.as_tensor(truth[name], dtype=torch.float32) for name in names}
    vertices = head(shape=torch.as_tensor(truth["shape"], dtype=torch.float32), **parameters).vertices[0].numpy()
    matrix = truth["head_from_world"]
    assert np.abs(truth["vertices"] @ matrix[:3, :3].T + matrix[:3, 3] - vertices).max() < 1e-5
    scale = np.cbrt(np.linalg.det(matrix[:3, :3]))
    assert np.isclose(1000 * scale, truth["mm_per_unit"])
    assert str(truth["head_name"]) == "open" and str(truth["head_hash"]) == head.file_hash
    assert 0.6 < np.std(truth["shape"]) < 1.2 and np.abs(truth["jaw_pose"]).max() > 0.02


def test_offsets_are_outside_the_basis(truth: dict[str, np.ndarray], head: HeadModel) -> None:
    offset = truth["static_offset"][0]
    face = head.regions["face"].numpy()
    assert 1e-3 < np.sqrt((offset[face] ** 2).sum(1).mean()) < 2e-3
    basis = np.concatenate([head.shapedirs.numpy(), head.exprdirs.numpy()], axis=2).reshape(offset.size, -1)
    basis = basis.astype(np.float64)
    inside = basis @ np.linalg.lstsq(basis, offset.ravel(), rcond=None)[0]
    outside = (offset.ravel() - inside).reshape(-1, 3)
    assert np.linalg.norm(outside) > 0.8 * np.linalg.norm(offset)
    assert np.sqrt((outside[face] ** 2).sum(1).mean()) > 0.9e-3 and np.linalg.norm(offset, axis=1).max() < 3.5e-3
    assert np.abs(offset[head.regions["eyeballs"].numpy()]).max() == 0


def test_offsets_are_smooth(head: HeadModel) -> None:
    offset = outside_offsets(head, 1.5e-3, np.random.default_rng(1))
    faces = head.faces[head.face_mask("left_cheek", "right_cheek", "forehead")].numpy()
    step = np.linalg.norm(offset[faces[:, 0]] - offset[faces[:, 1]], axis=1)
    assert np.median(step) < 0.8e-3


def test_new_triangles_close_where_the_old_ones_did(head: HeadModel) -> None:
    vertices, faces = head.v_template.numpy().astype(np.float64), head.faces.numpy()
    keep = head.region_mask("ears", "lips_tight", "eyelids").numpy()
    uv, uv_faces = head.uv.numpy().astype(np.float64), head.uv_faces.numpy()
    surface = remesh(vertices, faces, uv, uv_faces, np.random.default_rng(0), keep)
    _, welded = np.unique(np.round(surface.vertices * 1e7).astype(np.int64), axis=0, return_inverse=True)
    triangles = welded.ravel()[surface.faces]
    triangles = triangles[(np.diff(np.sort(triangles, axis=1), axis=1) > 0).all(1)]
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    assert count.max() == 2 and (count == 1).sum() == len(head.regions["bottomline"])
    assert (surface.barycentric.max(1) < 1).mean() > 0.4, "most vertices are new ones"
    points = np.einsum("nk,nkc->nc", surface.barycentric, vertices[faces[surface.source_face]])
    assert np.allclose(points, surface.vertices, atol=1e-9)
    old, new = (
        np.linalg.norm(np.cross(p[f[:, 1]] - p[f[:, 0]], p[f[:, 2]] - p[f[:, 0]]), axis=1).sum()
        for p, f in ((vertices, faces), (surface.vertices, surface.faces))
    )
    assert abs(new / old - 1) < 0.03


def test_texture_is_its_own(made: Path, head: HeadModel) -> None:
    part = load_avatar(made).parts[0]
    assert part.texture is not None and part.uv is not None and part.texture.shape[:2] == (SIZE, SIZE)
    assert part.uv.min() >= 0 and part.uv.max() <= 1
    assert head.texture is not None
    neutral = head.texture.reshape(SIZE, head.texture.shape[0] // SIZE, SIZE, -1, 3).mean((1, 3))
    assert np.abs(part.texture[..., :3] - neutral).mean() > 4


def test_same_seed_same_avatar_and_other_seed_another(made: Path, tmp_path: Path) -> None:
    again, other = make(tmp_path / "again", 3), make(tmp_path / "other", 4)
    assert again.read_bytes() == made.read_bytes()
    assert other.read_bytes() != made.read_bytes()
    information = json.loads((made.parent / "demo.json").read_text())
    assert information["seed"] == 3 and information["mm_per_unit"] > 0
    manifest = read_manifest(made.parent)
    assert manifest is not None and manifest.finished and manifest.stage == "make-demo-avatar"


def test_a_head_without_texture_is_refused(tmp_path: Path) -> None:
    from flame_fitting import assets

    with np.load(assets.open_head_path(), allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files if key != "texture_png"}
    np.savez(tmp_path / "bare.npz", **arrays)
    with pytest.raises(InputError, match="texture"):
        make_demo_avatar(MakeDemoAvatarConfig(output=tmp_path / "out", head=str(tmp_path / "bare.npz")))
    assert not (tmp_path / "out").exists()
