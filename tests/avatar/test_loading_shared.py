"""Real avatars, where they are there (fixture `test_data`)."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from flame_fitting.avatar.loading import load_avatar
from flame_fitting.capture.camera import intrinsics_from_fov, look_at


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


@pytest.mark.parametrize(
    ("splats", "mesh", "units", "center", "mm"),
    [
        ("lps_splat_sh3", "lps_head/lps_textured", 1.0, (0.0, 1.5, 0.0), 55.5),
        ("valid_asian_f2_splat_sh3", "valid_avatars/Asian_F_2_Casual_head", 7.3, (0.0, 12.0, 0.3), 1000 / 7.3),
    ],
)
def test_the_surface_of_splats_is_that_of_the_mesh_they_are_made_from(test_data, splats, mesh, units, center, mm):
    folder = test_data / "avatars"
    made, true = load_avatar(folder / f"splats/{splats}.ply"), load_avatar(folder / f"{mesh}.glb")
    assert made.geometry == "splats" and made.has_color
    radius = 120 / mm
    eyes = np.array(center) + 6 * radius * np.array([[0, 0, 1], [0.6, 0, 0.8], [-0.6, 0.2, 0.77]])
    cameras = look_at(eyes, np.array(center), np.array([0.0, 1.0, 0.0]))
    K = np.stack([intrinsics_from_fov(22.0, 256, 256)] * 3)
    one = made.draw(K, cameras, 256, 256, outputs=("depth",)).depth
    two = true.normalized(np.zeros(3), 1 / units).draw(K, cameras, 256, 256, outputs=("depth",)).depth
    apart = ((one - two) * mm)[(one > 0) & (two > 0)]
    assert len(apart) > 40_000
    assert abs(np.median(apart)) < 0.03 and np.median(np.abs(apart)) < 0.1
