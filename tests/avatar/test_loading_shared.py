"""Real avatars, where they are there (fixture `test_data`)."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from flame_fitting.avatar.loading import load_avatar


@pytest.fixture(scope="module")
def scan(test_data):
    return load_avatar(test_data / "avatars/lps_head/lps_textured.glb")


def distances(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    return cKDTree(two).query(one)[0]


def test_scan(scan):
    assert len(scan.vertices) == 9223 and scan.has_color
    np.testing.assert_allclose(scan.bounds, [[-4.276, -3.973, -2.590], [4.276, 3.974, 2.591]], atol=2e-3)


def test_draco_twin_is_the_same_surface(scan, test_data):
    twin = load_avatar(test_data / "avatars/lps_head/LeePerrySmith_draco.glb")
    assert distances(twin.vertices, scan.vertices).max() < 5e-3
    assert not twin.has_color


def test_stl_twin_is_the_same_surface_in_one_piece(scan, test_data):
    twin = load_avatar(test_data / "avatars/lps_head/lps_untextured.stl")
    assert len(twin.vertices) < len(scan.vertices)
    assert distances(twin.vertices, scan.vertices).max() < 1e-4


def test_obj_twin_is_the_same_surface_turned_and_scaled(scan, test_data):
    twin = load_avatar(test_data / "avatars/lps_head/lps_zup_mm.obj")
    assert twin.has_color
    # Z up, faces -Y, about millimetres, far from the origin.
    turned = np.stack([twin.vertices[:, 0], twin.vertices[:, 2], -twin.vertices[:, 1]], axis=1)
    middle = 0.5 * (turned.min(axis=0) + turned.max(axis=0))
    expected = scan.vertices - scan.bounds.mean(axis=0)
    assert distances((turned - middle) / 61.294, expected).max() < 5e-3


@pytest.mark.parametrize("name", ["Asian_F_2", "Black_M_1", "White_M_1"])
def test_game_avatars_have_eyes_teeth_and_colour(test_data, name):
    avatar = load_avatar(test_data / f"avatars/valid_avatars/{name}_Casual_head.glb")
    names = {part.name for part in avatar.parts}
    assert {"H_DDS_HighRes", "h_L_eye", "h_R_eye", "h_TeethUp", "h_TeethDown"} <= names
    assert avatar.has_color and all(part.texture is not None for part in avatar.parts)
    assert 1.3 < avatar.bounds[0, 1] < 1.5 and 1.7 < avatar.bounds[1, 1] < 1.85


def test_quads_and_other_topologies(test_data):
    body = load_avatar(test_data / "avatars/makehuman_cc0/mh_male_young_fullbody.obj")
    assert 16 < np.ptp(body.vertices[:, 1]) < 19 and not body.has_color
    assert len(load_avatar(test_data / "avatars/ict_facekit/sample_0.ply").vertices) == 17202


def test_meshopt_is_unpacked_to_the_body_that_the_cut_head_comes_from(test_data):
    body = load_avatar(test_data / "avatars/valid_avatars/original/White_M_1_Casual.meshopt.glb")
    head = load_avatar(test_data / "avatars/valid_avatars/White_M_1_Casual_head.glb")
    assert body.has_color and 1.7 < np.ptp(body.vertices[:, 1]) < 1.9
    assert np.percentile(distances(head.vertices, body.vertices), 99) < 1e-3
