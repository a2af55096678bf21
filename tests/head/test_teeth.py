"""Teeth: order of their vertices, winding, place in the mouth, and what they follow."""

import numpy as np
import pytest
import torch

from flame_fitting.head.completion import complete_flame
from flame_fitting.head.flame_files import read_flame
from flame_fitting.head.flat_map import signed_areas
from flame_fitting.head.mesh_graph import MeshGraph
from flame_fitting.head.model import HeadData, HeadModel
from flame_fitting.head.teeth import COLUMNS, ROWS, add_teeth
from tests.head.ring_head import ring_head
from tests.toy import toy_head_data


@pytest.fixture(
    scope="module", params=["rings", "standin/flame2023_standin.pkl", "flame2023_open/flame2023_open_reduced.npz"]
)
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> HeadData:
    if request.param == "rings":
        return ring_head()
    path = request.getfixturevalue("test_data") / request.param
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_FITTING_CACHE", str(tmp_path_factory.mktemp("cache")))
        return read_flame(path)


@pytest.fixture(scope="module")
def head(bare: HeadData, tmp_path_factory: pytest.TempPathFactory) -> HeadData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_FITTING_CACHE", str(tmp_path_factory.mktemp("cache")))
        return complete_flame(bare, add_teeth=True)


def rows(head: HeadData) -> dict[str, np.ndarray]:
    """Vertices (15, 3) by row."""
    teeth = head.v_template[-len(ROWS) * COLUMNS :].reshape(len(ROWS), COLUMNS, 3)
    return dict(zip(ROWS, teeth, strict=True))


def own_faces(bare: HeadData, head: HeadData) -> np.ndarray:
    return head.faces[len(bare.faces) :]


def test_counts(bare: HeadData, head: HeadData) -> None:
    assert len(head.v_template) - len(bare.v_template) == 120 and len(head.faces) - len(bare.faces) == 168
    np.testing.assert_array_equal(head.v_template[:-120], bare.v_template)
    np.testing.assert_array_equal(head.faces[:-168], bare.faces)
    if len(bare.v_template) == 5023:
        assert (len(head.v_template), len(head.faces)) == (5143, 10144)
    first = len(bare.v_template)
    np.testing.assert_array_equal(head.regions["teeth"], np.arange(first, first + 120))
    assert len(head.regions["teeth_upper"]) == len(head.regions["teeth_lower"]) == 60
    added = [
        len(head.regions[half]) - len(np.flatnonzero(head.regions[half] < first))
        for half in ("left_half", "right_half")
    ]
    assert added == [64, 64]  # 8 columns of 8 rows: the middle one is in both
    HeadModel(head)  # all arrays fit together


def test_rows_lie_as_the_lips_say(bare: HeadData, head: HeadData) -> None:
    row = rows(head)
    upper, lower = (bare.v_template[head.regions[f"lip_outside_ring_{part}"]] for part in ("upper", "lower"))
    upper, lower = (ids[np.argsort(-ids[:, 0])] for ids in (upper, lower))
    gap = np.linalg.norm(upper - lower, axis=1).mean()
    assert 0.003 < gap < 0.03
    for name in ROWS:
        assert (np.diff(row[name][:, 0]) < 0).all(), f"{name}: from the subject's left to the right"
        np.testing.assert_allclose(row[name][:, 0], 0.5 * (upper + lower)[:, 0], atol=1e-9)
        assert np.ptp(row[name][:, 1]) < 1e-9
    height = {name: (row[name][0, 1] - 0.5 * (upper + lower)[:, 1].mean()) / gap for name in ROWS}
    wanted = {"upper_root": 2.1, "upper_edge": 0.1, "lower_edge": -0.1, "lower_root": -2.1}
    assert height == pytest.approx(wanted | {f"{name}_back": value for name, value in wanted.items()})
    behind = {name: (0.5 * (upper + lower)[:, 2] - row[name][:, 2]).mean() / gap for name in ROWS}
    depth = {"upper_root": 1.5, "upper_edge": 1.5, "lower_edge": 1.9, "lower_root": 1.9}
    assert behind == pytest.approx(depth | {f"{name}_back": value + 1 for name, value in depth.items()})


def test_triangles_face_outward(bare: HeadData, head: HeadData) -> None:
    faces = own_faces(bare, head)
    a, b, c = head.v_template[faces].transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    assert (np.linalg.norm(normal, axis=1) > 1e-9).all()
    first = len(bare.v_template)
    row_of = (faces - first) // COLUMNS
    names = [{ROWS[i] for i in rows_of} for rows_of in row_of]
    seen = {"front": 0, "back": 0, "edge": 0}
    for triangle, direction in zip(names, normal, strict=True):
        jaw = "upper" if any(name.startswith("upper") for name in triangle) else "lower"
        if triangle == {f"{jaw}_root", f"{jaw}_edge"}:
            assert direction[2] > 0
            seen["front"] += 1
        elif triangle == {f"{jaw}_root_back", f"{jaw}_edge_back"}:
            assert direction[2] < 0
            seen["back"] += 1
        else:
            assert triangle == {f"{jaw}_edge", f"{jaw}_edge_back"}
            assert direction[1] * (-1 if jaw == "upper" else 1) > 0  # edges look at each other
            seen["edge"] += 1
    assert seen == {"front": 56, "back": 56, "edge": 56}


def test_neighbours_agree_on_the_outside(bare: HeadData, head: HeadData) -> None:
    faces = own_faces(bare, head) - len(bare.v_template)
    graph = MeshGraph(faces, 120)
    assert len(np.unique(graph.component)) == 2  # one sheet for each jaw
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed)
    assert [len(loop) for loop in graph.boundary_loops] == [34, 34]  # 2 * 14 + 2 * 3 edges


def test_teeth_are_inside_the_mouth(head: HeadData) -> None:
    lips = head.v_template[head.regions["lips"]]
    teeth = head.v_template[head.regions["teeth"]]
    assert teeth[:, 2].max() < lips[:, 2].max() - 0.003
    assert lips[:, 0].min() < teeth[:, 0].min() and teeth[:, 0].max() < lips[:, 0].max()


def test_the_upper_jaw_follows_the_head_and_the_lower_one_the_jaw(head: HeadData) -> None:
    model = HeadModel(head, dtype=torch.float64)
    rest = model().vertices[0]
    opened = model(jaw_pose=torch.tensor([[0.3, 0, 0]], dtype=torch.float64)).vertices[0]
    turned = model(neck_pose=torch.tensor([[0, 0.3, 0]], dtype=torch.float64)).vertices[0]
    upper, lower = head.regions["teeth_upper"], head.regions["teeth_lower"]
    assert (opened - rest)[upper].abs().max() < 1e-12 < 0.001 < (opened - rest)[lower].abs().max()
    for ids in (upper, lower):
        moved, before = turned[ids], rest[ids]
        assert (moved - before).abs().max() > 1e-3
        distances = torch.cdist(before, before) - torch.cdist(moved, moved)
        assert distances.abs().max() < 1e-6  # rigidly


def test_identity_moves_them_with_the_lips_and_expression_not_at_all(bare: HeadData, head: HeadData) -> None:
    first = len(bare.v_template)
    upper, lower = (head.regions[f"lip_outside_ring_{part}"] for part in ("upper", "lower"))
    upper, lower = (ids[np.argsort(-bare.v_template[ids, 0])] for ids in (upper, lower))
    wanted = 0.5 * (bare.shapedirs[upper] + bare.shapedirs[lower])
    for i in range(len(ROWS)):
        of_row = head.shapedirs[first + i * COLUMNS : first + (i + 1) * COLUMNS]
        np.testing.assert_allclose(of_row, wanted, atol=1e-9)
    for array in (head.exprdirs, head.posedirs, head.J_regressor.T):
        assert len(array) == first + 120 and not np.any(array[first:])


def test_their_texture_is_their_own(bare: HeadData, head: HeadData) -> None:
    assert head.uv is not None and head.uv_faces is not None
    uv = head.uv[-120:]
    assert (uv[:, 0] >= 0.38 - 1e-6).all() and (uv[:, 0] <= 0.62 + 1e-6).all()
    assert uv[:, 1].min() == pytest.approx(0.9575) and uv[:, 1].max() == pytest.approx(0.9917)
    rest = head.uv[:-120][head.uv_faces[: len(bare.faces)]]
    assert rest[..., 1].max() < 0.9575  # the strip is free
    assert signed_areas(head.uv, head.uv_faces[len(bare.faces) :]).min() > 1e-6
    assert uv[0, 0] > uv[14, 0]  # as the face: the subject's left on the right


def test_teeth_come_once_and_only_where_there_is_a_mouth(head: HeadData) -> None:
    assert add_teeth(head) is head
    other = toy_head_data()
    assert add_teeth(other) is other
