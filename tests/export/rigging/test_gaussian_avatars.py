"""Splats on a head of FLAME's topology, written for GaussianAvatars and read again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flame_fitting.avatar.bound_splats import binding_faces
from flame_fitting.avatar.loading import load_avatar
from flame_fitting.avatar.ply import element_rows, vertex_properties
from flame_fitting.avatar.splat_moving import placed
from flame_fitting.avatar.splat_ply import splat_ply
from flame_fitting.capture.avatar_record import AvatarRecord
from flame_fitting.capture.capture import Capture
from flame_fitting.errors import InputError
from flame_fitting.fit.result import FitResult
from flame_fitting.head.flame_files import FLAME_WITH_TEETH
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from tests.avatar.mesh_splats import splats_on
from tests.export.jobs import exported
from tests.export.rigging.avatars import fit_of


@pytest.fixture(scope="module")
def flame(test_data: Path) -> HeadModel:
    path = test_data / "standin" / "flame2023_standin.pkl"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return load_head(str(path))


@pytest.fixture(scope="module")
def person(flame: HeadModel) -> FitResult:
    rng = np.random.default_rng(1)
    fit = fit_of(flame)
    own = fit.parameters | {
        "shape": 0.5 * rng.normal(size=300),
        "expr": 0.2 * rng.normal(size=(1, 100)),
        "static_offset": 1e-4 * rng.normal(size=(1, flame.n_vertices, 3)),
    }
    return replace(fit, parameters={name: np.asarray(value, dtype=np.float32) for name, value in own.items()})


def test_a_round_trip(flame: HeadModel, person: FitResult, tmp_path: Path) -> None:
    vertices = person.vertices_head(flame)[0]
    colors = np.random.default_rng(0).uniform(0.2, 0.8, (len(vertices), 3))
    world = placed(splats_on(vertices, flame.faces.numpy(), colors, 6000), np.linalg.inv(person.head_from_world))
    path = tmp_path / "avatar.ply"
    path.write_bytes(splat_ply(world))
    capture = Capture(tmp_path, [], avatar=AvatarRecord(file=str(path), geometry="splats"))
    made = exported(person, capture, flame, tmp_path / "out", format="gaussian-avatars")
    place = tmp_path / "out" / "point_cloud" / "iteration_1" / "point_cloud.ply"
    assert str(place) in made.opens_in
    names = vertex_properties(place.read_bytes())
    assert {f"f_rest_{k}" for k in range(45)} | {"binding_0", "nx"} <= names and "f_rest_45" not in names
    rows = element_rows(place.read_bytes(), ("vertex",))["vertex"]
    assert all(rows.dtype[name] == np.float32 for name in rows.dtype.names)
    assert np.abs(rows["binding_0"] - np.round(rows["binding_0"])).max() == 0
    with np.load(place.parent / "flame_param.npz") as found:
        shapes = {name: found[name].shape for name in found.files}
        assert {found[name].dtype for name in found.files} == {np.dtype(np.float32)}
    count = FLAME_WITH_TEETH[0]
    assert shapes["shape"] == (300,) and shapes["expr"] == (1, 100) and shapes["eyes_pose"] == (1, 6)
    assert shapes["static_offset"] == shapes["dynamic_offset"] == (1, count, 3)
    read = load_avatar(place, head=lambda: flame, whole=True).splats
    head = placed(world, person.head_from_world)
    np.testing.assert_allclose(read.means, head.means, atol=2e-6)  # metres
    np.testing.assert_allclose(read.scales, head.scales, rtol=1e-4)
    np.testing.assert_allclose(read.rotations, head.rotations, atol=2e-4)
    np.testing.assert_allclose(read.opacities, head.opacities, atol=1e-6)
    np.testing.assert_allclose(read.sh[:, :1], head.sh, atol=1e-6)


def test_teeth_are_numbered_as_there(flame: HeadModel) -> None:
    assert (flame.n_vertices, len(flame.faces)) == FLAME_WITH_TEETH
    faces = binding_faces(flame)
    np.testing.assert_array_equal(faces[:9976], flame.faces.numpy()[:9976])
    teeth = faces[9976:] - 5023
    # some of them, by their places in its list
    wanted = {0: (0, 31, 30), 14: (7, 8, 37), 28: (60, 75, 76), 56: (75, 30, 76), 70: (82, 37, 38)}
    wanted |= {84: (45, 46, 15), 98: (52, 23, 22), 112: (90, 106, 105), 127: (98, 113, 112), 166: (118, 59, 58)}
    assert {k: tuple(int(v) for v in teeth[k]) for k in wanted} == {k: tuple(map(int, v)) for k, v in wanted.items()}
    edges = np.sort(np.concatenate([teeth[:, [0, 1]], teeth[:, [1, 2]], teeth[:, [2, 0]]]), axis=1)
    assert len(np.unique(np.sort(teeth, axis=1), axis=0)) == 168
    assert np.unique(edges, axis=0, return_counts=True)[1].max() <= 2


def test_another_head_has_its_own_faces() -> None:
    head = load_head("open")
    np.testing.assert_array_equal(binding_faces(head), head.faces.numpy())


def test_another_head_is_refused_before_anything_is_bound(tmp_path: Path) -> None:
    head = load_head("open")
    path = tmp_path / "avatar.ply"
    path.touch()
    capture = Capture(tmp_path, [], avatar=AvatarRecord(file=str(path), geometry="splats"))
    with pytest.raises(InputError, match="has not FLAME's faces, and GaussianAvatars binds"):
        exported(fit_of(head), capture, head, tmp_path / "out", format="gaussian-avatars")
    assert not (tmp_path / "out").exists()
