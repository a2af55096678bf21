"""STAR's network: names and shapes of the published state dicts, and the numbers of an independent implementation."""

import json

import numpy as np
import pytest
import torch

from flame_fitting.landmarks.star_network import StarNetwork, decode, points_of_state_dict
from tests.landmarks.star_reference import PATH, PHOTO_BOX, SETS, answers, filled, photo, picture


@pytest.fixture(scope="module", params=SETS)
def made(request):
    """Name of the checkpoint, and what the filled network answers."""
    return request.param, answers(filled(SETS[request.param]))


@pytest.fixture(scope="module")
def reference(test_data):
    folder = test_data / "spec" / "star"
    if not (folder / "star_parity.npz").is_file():
        pytest.skip(f"{folder}/star_parity.npz is not there")
    with np.load(folder / "star_parity.npz") as file:
        return dict(file)


def test_answers_stay_what_they_are(made):
    name, found = made
    with np.load(PATH) as file:
        np.testing.assert_allclose(found["points"][-1], file[f"{name}/points"], atol=2e-5)
        np.testing.assert_allclose(found["photo_px"], file[f"{name}/photo_px"], atol=4e-3)


def test_points_and_maps_are_those_of_the_reference(made, reference):
    name, found = made
    np.testing.assert_array_equal(picture(), reference["input_bgr_u8"])
    np.testing.assert_allclose(found["points"][:, 0], reference[f"{name}/landmarks_per_stack"], atol=2e-5)
    np.testing.assert_allclose(found["points"][-1, 0], reference[f"{name}/landmarks_norm"], atol=2e-5)
    maps = found["maps"][0]
    np.testing.assert_allclose(
        maps[reference[f"{name}/final_map_channels"]], reference[f"{name}/final_map_full"], atol=1e-4
    )
    np.testing.assert_allclose(maps.mean((1, 2)), reference[f"{name}/final_map_mean"], atol=1e-4)
    np.testing.assert_allclose(maps.max((1, 2)), reference[f"{name}/final_map_max"], atol=1e-4)


def test_crops_and_points_of_a_photo_are_those_of_the_reference(made, reference):
    name, found = made
    np.testing.assert_array_equal(photo(), reference["photo_bgr_u8"])
    # versions of OpenCV differ by a grey level here and there
    assert np.abs(found["crop"].astype(int) - reference["photo_crop_bgr_u8"]).max() <= 1
    np.testing.assert_allclose(found["points"][-1, 1], reference[f"{name}/photo_landmarks_norm"], atol=5e-4)
    # its pixel centres lie on whole numbers
    np.testing.assert_allclose(found["photo_px"] - 0.5, reference[f"{name}/photo_landmarks_px"], atol=0.05)


@pytest.mark.parametrize("name", SETS)
def test_state_dicts_have_the_published_names_and_shapes(name, test_data):
    path = test_data / "spec" / "star" / f"star_{name}_state_dict.json"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    state = StarNetwork(SETS[name]).state_dict()
    found = [[key, list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in state.items()]
    assert found == json.loads(path.read_text())


@pytest.mark.parametrize("count", SETS.values())
def test_state_dicts_say_how_many_points_they_are_for(count):
    state = StarNetwork(count).state_dict()
    assert points_of_state_dict(state) == count and len(state) == 1450
    edges = state["e2h_transform.weight"].sum(1).flatten() + state["e2h_transform.bias"]
    assert (edges == 1).all(), "each point has one edge, or none and a bias"
    assert state["e2h_transform.bias"].nonzero().flatten().tolist() == ([] if count == 68 else [96, 97])


def test_other_state_dicts_are_refused():
    with pytest.raises(ValueError, match="29 points"):
        points_of_state_dict({"out_heatmaps.0.conv.weight": torch.zeros(29, 256, 1, 1)})
    with pytest.raises(ValueError, match="no heat maps"):
        points_of_state_dict({"conv1.weight": torch.zeros(3)})


def test_a_point_is_its_maps_centre_of_mass():
    maps = torch.zeros(1, 3, 64, 64)
    maps[0, 0, 10, 20] = 3.0
    maps[0, 1, 5, 8], maps[0, 1, 5, 12] = 1.0, 3.0
    expected = np.array([[2 * 20 / 63 - 1, 2 * 10 / 63 - 1], [2 * 11 / 63 - 1, 2 * 5 / 63 - 1], [0, 0]])
    np.testing.assert_allclose(decode(maps)[0].numpy(), expected, atol=1e-6)


def test_the_box_of_the_photo_is_the_published_rule():
    from flame_fitting.landmarks.star_detector import crop_matrix

    left, top, right, bottom = PHOTO_BOX - 0.5
    scale = 256 / (1.05 * min(right - left, bottom - top))
    matrix = crop_matrix(PHOTO_BOX)
    assert matrix[0, 0] == pytest.approx(scale) and matrix[0, 1] == 0
    assert matrix @ [(left + right) / 2, (top + bottom) / 2, 1] == pytest.approx([127.5, 127.5, 1], abs=1e-3)
