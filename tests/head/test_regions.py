"""Regions of FLAME heads: rings and boundaries exactly, outlines against masks that were made independently."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.errors import InputError
from flame_fitting.head.flame_files import read_flame, read_masks
from flame_fitting.head.loading import load_head
from flame_fitting.head.mesh_graph import UNREACHED, MeshGraph
from flame_fitting.head.model import HeadData
from flame_fitting.head.mouth import mouth_rings
from flame_fitting.head.regions import OFFICIAL, flame_regions
from tests.head.ring_head import AROUND, ring_head
from tests.toy import toy_head_data

COUNTS = {
    "bottomline": 30,
    "boundary": 114,
    "lip_inside_ring": 32,
    "lip_inside_ring_upper": 15,
    "lip_inside_ring_lower": 15,
    "lip_inside": 128,
    "lip_outside_ring_upper": 15,
    "lip_outside_ring_lower": 15,
    "left_eyeball": 546,
    "right_eyeball": 546,
    "left_iris": 97,
    "right_iris": 97,
    "eyeballs": 1092,
    "sclerae": 1092 - 2 * 97,
    "neck_left_point": 1,
    "neck_right_point": 1,
    "front_middle_bottom_point_boundary": 1,
    "back_middle_bottom_point_boundary": 1,
    "left_half": 2569,
    "right_half": 2569,
}
WITH_MASKS = {"neck_lower": 130, "neck_upper": 149, "neck_top": 34}
BANDS = {
    "lips_tight": (190, 222),
    "left_eyelid": (130, 160),
    "right_eyelid": (130, 160),
    "neck_lower": (130, 132),
    "neck_upper": (140, 170),
    "neck_top": (26, 50),
}
AGREEMENT = {
    "face": 0.93,
    "neck": 0.9,
    "scalp": 0.9,
    "boundary": 1.0,
    "left_eyeball": 1.0,
    "right_eyeball": 1.0,
    "left_ear": 0.97,
    "right_ear": 0.97,
    "forehead": 0.93,
    "eye_region": 0.93,
    "left_eye_region": 0.93,
    "right_eye_region": 0.93,
    "nose": 0.95,
    "lips": 0.97,
}


@pytest.fixture(scope="module")
def masks(test_data: Path) -> dict[str, np.ndarray]:
    path = test_data / "standin" / "FLAME_masks_standin.pkl"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return read_masks(path)


@pytest.fixture(scope="module", params=["standin/flame2023_standin.pkl", "flame2023_open/flame2023_open_reduced.npz"])
def data(request: pytest.FixtureRequest, test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> HeadData:
    path = test_data / request.param
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_FITTING_CACHE", str(tmp_path_factory.mktemp("cache")))
        return read_flame(path)


@pytest.fixture(scope="module")
def regions(data: HeadData) -> dict[str, np.ndarray]:
    return flame_regions(data.v_template, data.faces)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return len(np.intersect1d(a, b)) / len(np.union1d(a, b))


def test_counts_are_those_of_flame(regions: dict[str, np.ndarray]) -> None:
    assert {name: len(regions[name]) for name in COUNTS} == COUNTS
    for name, (low, high) in BANDS.items():
        assert low <= len(regions[name]) <= high, name


def test_outlines_agree_with_independent_masks(
    regions: dict[str, np.ndarray], data: HeadData, masks: dict[str, np.ndarray]
) -> None:
    assert set(AGREEMENT) == set(OFFICIAL) == set(masks)
    found = {name: jaccard(regions[name], masks[name]) for name in AGREEMENT}
    assert {name: value for name, value in found.items() if value < AGREEMENT[name]} == {}
    # The face without what is no face, made from the masks, is nearly that made without them.
    assert jaccard(regions["face"], flame_regions(data.v_template, data.faces, masks)["face"]) > 0.95


def test_outlines_follow_the_shape(data: HeadData, masks: dict[str, np.ndarray]) -> None:
    """Rest shapes of other people: the same vertices, found anew by geometry."""
    rng = np.random.default_rng(3)
    for _ in range(3):
        shape = data.v_template + data.shapedirs[..., :30] @ rng.normal(size=30)
        regions = flame_regions(shape, data.faces)
        for name in AGREEMENT:
            assert jaccard(regions[name], masks[name]) > 0.8, name


def test_masks_win_and_everything_else_follows_them(data: HeadData, masks: dict[str, np.ndarray]) -> None:
    regions = flame_regions(data.v_template, data.faces, masks)
    for name in set(OFFICIAL) - {"face"}:
        np.testing.assert_array_equal(regions[name], np.sort(masks[name]), err_msg=name)
    assert {name: len(regions[name]) for name in WITH_MASKS} == WITH_MASKS
    assert set(regions["face"]) < set(masks["face"].tolist())
    hair = set(masks["scalp"].tolist()) - set(masks["face"].tolist()) - set(masks["neck"].tolist())
    assert set(regions["hair"].tolist()) == hair


def test_a_face_is_what_shows_of_it(regions: dict[str, np.ndarray], data: HeadData) -> None:
    for name in ("lip_inside", "eye_sockets", "eyeballs", "ears", "neck", "scalp"):
        assert not np.isin(regions["face"], regions[name]).any(), name
    for name in ("lip_outside_ring_upper", "lip_outside_ring_lower", "left_cheek", "right_cheek", "chin", "eyelids"):
        assert np.isin(regions[name], regions["face"]).all(), name
    # Where nothing else says so, each vertex of the skin belongs to one of a few large parts.
    parts = ("face", "neck", "scalp", "ears", "boundary", "lip_inside", "eye_sockets", "eyeballs", "nose")
    covered = np.unique(np.concatenate([regions[name] for name in parts]))
    assert len(covered) > 0.99 * len(data.v_template)


def test_nostrils_are_insides_of_the_nose(regions: dict[str, np.ndarray], data: HeadData) -> None:
    inside, template = regions["nostrils"], data.v_template
    assert 20 < len(inside) < 0.5 * len(regions["nose"]) and np.isin(inside, regions["nose"]).all()
    assert not np.isin(inside, regions["face"]).any()
    assert template[inside, 2].max() < template[regions["nose"], 2].max() - 0.005
    assert (template[inside, 0] > 0).sum() == (template[inside, 0] < 0).sum()


def test_sides_and_places(regions: dict[str, np.ndarray], data: HeadData) -> None:
    place = {name: data.v_template[ids].mean(0) for name, ids in regions.items() if len(ids)}
    for part in ("eyeball", "iris", "eye", "eye_region", "eyelid", "ear", "half", "cheek"):
        assert place[f"left_{part}"][0] > 0.01 and place[f"right_{part}"][0] < -0.01, part
        assert abs(len(regions[f"left_{part}"]) - len(regions[f"right_{part}"])) <= 12, part
    assert place["neck_left_point"][0] > 0.03 > -0.03 > place["neck_right_point"][0]
    for ring in ("lip_inside_ring", "lip_outside_ring"):
        assert place[f"{ring}_upper"][1] > place[f"{ring}_lower"][1] + 0.002
    assert place["front_middle_bottom_point_boundary"][2] > place["back_middle_bottom_point_boundary"][2] + 0.05
    order = ["bottomline", "neck_lower", "neck_upper", "chin", "lips", "nose", "eye_region", "forehead"]
    heights = [place[name][1] for name in order]
    assert heights == sorted(heights)
    assert place["irises"][2] > place["eyeballs"][2] + 0.008


def test_the_midline_is_in_both_halves(regions: dict[str, np.ndarray], data: HeadData) -> None:
    both = np.intersect1d(regions["left_half"], regions["right_half"])
    assert len(both) == 115 and np.abs(data.v_template[both, 0]).max() < 0.002
    assert len(np.union1d(regions["left_half"], regions["right_half"])) == len(data.v_template)


def test_the_open_heads_names_are_all_there(regions: dict[str, np.ndarray]) -> None:
    assert set(load_head("open").regions) <= set(regions)


def test_masks_of_another_mesh_are_refused() -> None:
    data = ring_head()
    with pytest.raises(InputError, match=r"scalp names vertices that a head of 2564 vertices lacks"):
        flame_regions(data.v_template, data.faces, {"scalp": np.array([1, 5022])})
    with pytest.raises(InputError, match="holds no vertex numbers"):
        flame_regions(data.v_template, data.faces, {"face": np.array([0.5])})


def test_a_ring_head_without_any_data() -> None:
    data = ring_head()
    regions = flame_regions(data.v_template, data.faces)
    expected = {"lip_inside_ring": 1, "lip_inside": 4, "bottomline": 1, "boundary": 4, "lips": 8}
    assert {name: len(regions[name]) for name in expected} == {k: n * AROUND for k, n in expected.items()}
    # Ring 6 above, ring 7 below, without the corners.
    upper, lower = regions["lip_outside_ring_upper"], regions["lip_outside_ring_lower"]
    assert set(upper // AROUND) == {6} and set(lower // AROUND) == {7} and len(upper) == len(lower) == 15
    ball = regions["left_eyeball"]
    off_axis = data.v_template[ball] - [0.03, 0.075, 0.06]
    near = off_axis[:, 2] > np.cos(np.radians(25)) * np.linalg.norm(off_axis, axis=1)
    np.testing.assert_array_equal(regions["left_iris"], ball[near])


def test_what_a_mesh_lacks_is_empty() -> None:
    blind = ring_head(eyes=False)
    regions = flame_regions(blind.v_template, blind.faces)
    for name in ("eyeballs", "irises", "face", "scalp", "nose", "ears", "left_eyelid"):
        assert len(regions[name]) == 0, name
    assert len(regions["lip_inside_ring"]) == AROUND and len(regions["boundary"]) == 4 * AROUND
    closed = toy_head_data()
    regions = flame_regions(closed.v_template, closed.faces)
    for name in ("bottomline", "lip_inside", "face", "neck_left_point", "boundary"):
        assert len(regions[name]) == 0, name
    assert len(regions["skin"]) == len(closed.v_template)
    nothing = flame_regions(np.zeros((0, 3)), np.zeros((0, 3), dtype=int))
    assert set(nothing) == set(regions) and not any(len(ids) for ids in nothing.values())


def test_graph() -> None:
    """Two triangles that share an edge, one apart, one vertex alone."""
    graph = MeshGraph(np.array([[0, 1, 2], [2, 1, 3], [4, 5, 6]]), 8)
    assert len(graph.edges) == 8 and len(np.unique(graph.component)) == 3
    assert graph.hops(np.array([0]), 5).tolist() == [0, 1, 1, 2] + [UNREACHED] * 4
    loops = sorted(graph.boundary_loops, key=len)
    assert [len(loop) for loop in loops] == [3, 4]
    start = loops[1].tolist().index(0)
    assert np.roll(loops[1], -start).tolist() == [0, 1, 3, 2]  # along the triangles' own edges
    assert graph.cycle(np.isin(np.arange(8), [4, 5, 6])) is not None
    assert graph.cycle(np.isin(np.arange(8), [0, 1, 2, 3])) is None  # a diagonal: no simple chain


def test_holes_are_filled() -> None:
    data = ring_head(eyes=False)
    graph = MeshGraph(data.faces, len(data.v_template))
    middle = np.array([20 * AROUND + 5])
    ring = graph.hops(middle, 3)
    everywhere = np.ones(graph.count, dtype=bool)
    np.testing.assert_array_equal(graph.filled((ring <= 3) & (ring > 0), everywhere), ring <= 3)
    lonely = np.zeros(graph.count, dtype=bool)
    lonely[middle] = True
    assert not graph.majority(lonely, 1).any()


def test_arcs_run_from_the_subjects_left() -> None:
    data = ring_head()
    rings = mouth_rings(MeshGraph(data.faces, len(data.v_template)), data.v_template)
    assert rings is not None
    pairs = rings.contour_pairs()
    assert pairs is not None
    for ids in pairs:
        assert (np.diff(data.v_template[ids, 0]) < 0).all()
    np.testing.assert_array_equal(pairs[0] % AROUND, np.arange(1, 16))
    np.testing.assert_array_equal(pairs[1] % AROUND, np.arange(31, 16, -1))
