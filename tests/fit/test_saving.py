"""A fit's folder read back: parameters, placement, texture, landmarks, stages and warnings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting.errors import InputError
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.driver import recorded
from flame_fitting.fit.landmark_sources import PlacedLandmarks
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import PARAMETER_KEYS, placement_matrix
from flame_fitting.fit.prepare import Start
from flame_fitting.fit.quality import measure
from flame_fitting.fit.result import FitResult, check_head, load_fit
from flame_fitting.fit.saving import focal_in_words, make_result, save_fit
from flame_fitting.fit.state import FitState
from flame_fitting.landmarks.lifting import Landmarks3D
from tests.fit.known_truth import embedding_on, problem
from tests.synthetic import known_fit, render_case, similarity
from tests.toy import toy_head

WORLD = similarity(0.01)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitResult, FitState, Observations]:
    """The truth of the toy problem, saved as if it had been fitted to a capture in centimetres."""
    folder = tmp_path_factory.mktemp("fit")
    plain = toy_head()
    capture = render_case(folder, plain, known_fit(plain, WORLD), n_fit=2, n_heldout=1, size=64)
    head, truth, targets, surface = problem(offset=lambda h: 1e-3 * torch.sin(60 * h.v_template))
    seen = Observations(head, targets, surface)
    state = FitState(truth, WORLD, texture=torch.rand(32, 32, 3), lights=torch.rand(9, 3))
    sigmas = torch.rand(truth.shape.shape, dtype=torch.float64).numpy()
    sigmas[-1] = np.nan  # did not move
    sigmas = {"shape": sigmas, "placement": np.arange(7.0), "jaw_pose": np.full((1, 3), np.inf)}
    state = replace(state, uncertainty=sigmas)
    state = state.warned("stage toy was rolled back: it was worse")
    quality = measure(head, truth, targets)
    state = recorded(state, "lmk_init_all", 1.5, quality)
    state = recorded(state, "geo_init_all", 2.5, quality, accepted=False)
    count = 80
    points = np.random.default_rng(0).normal(size=(count, 3))
    marks = Landmarks3D(points, np.full(count, 0.1), np.full(count, 3), np.full(count, "depth"), "toy")
    config = FitConfig(capture.root, folder / "fit", seed=7)
    result = make_result(state, seen, Start(WORLD, [PlacedLandmarks(embedding_on(head), [marks])], targets), capture)
    result.seconds = {"fit": 4.0}
    (folder / "fit").mkdir()
    save_fit(folder / "fit", result, state, config)
    return folder / "fit", result, state, seen


def test_the_focal_length_is_said_with_its_deviation(saved) -> None:
    _, result, _, _ = saved
    assert focal_in_words(result) is None  # of cameras that were known
    found = replace(result, focal_length=1.25, image_size=(400, 600), uncertainty={"log_focal": np.array([0.084])})
    assert focal_in_words(found) == (
        "focal length: 1.250 of the picture's longer side (750 px, 44 degrees), standard deviation 8 %"
    )
    for none in ({}, {"log_focal": np.array([np.nan])}):
        assert "no stage has estimated it" in (focal_in_words(replace(found, uncertainty=none)) or "")


def test_parameters_and_placement_come_back(saved) -> None:
    folder, result, state, _ = saved
    loaded = load_fit(folder)
    assert set(loaded.parameters) == set(PARAMETER_KEYS) == set(result.parameters)
    for name in PARAMETER_KEYS:
        np.testing.assert_allclose(loaded.parameters[name], result.parameters[name], rtol=1e-6, atol=1e-8)
        assert loaded.parameters[name].dtype == np.float32
    np.testing.assert_array_equal(loaded.head_from_world, result.head_from_world)
    assert (loaded.head_name, loaded.head_hash) == ("toy", "toy")
    assert loaded.timestep_id == ["00000"] and loaded.image_size == (64, 64) and loaded.scale_source == "estimated"
    assert loaded.lights is not None and loaded.texture is not None and state.lights is not None
    assert state.texture is not None
    np.testing.assert_allclose(loaded.lights, state.lights.numpy(), rtol=1e-6)
    assert np.abs(loaded.texture / 255 - state.texture.numpy()).max() < 0.51 / 255


def test_placement_is_folded_into_head_from_world(saved) -> None:
    folder, _, state, seen = saved
    loaded = load_fit(folder)
    assert state.parameters.placement.abs().max() > 1e-3
    expected = np.linalg.inv(placement_matrix(state.parameters.placement)) @ WORLD
    np.testing.assert_allclose(loaded.head_from_world, expected, rtol=1e-9)
    # the same vertices in the avatar's coordinates, by either way
    head = toy_head().double()
    np.testing.assert_allclose(loaded.vertices_world(head), state.vertices_world(seen.head), atol=1e-6 / 0.01)
    assert loaded.mm_per_unit == pytest.approx(10 / np.exp(float(state.parameters.placement[6])))
    bare = loaded.without_offsets()
    assert np.abs(bare.vertices_head(head) - loaded.vertices_head(head)).max() > 5e-4


def test_stages_warnings_and_times_come_back(saved) -> None:
    folder, result, _, seen = saved
    loaded = load_fit(folder)
    assert loaded.warnings == ["stage toy was rolled back: it was worse"] and loaded.seconds == {"fit": 4.0}
    assert [(s.name, s.seconds, s.accepted) for s in loaded.stages] == [
        ("lmk_init_all", 1.5, True),
        ("geo_init_all", 2.5, False),
    ]
    for was, now in zip(result.stages, loaded.stages, strict=True):
        assert now.summary == was.summary
        # double, wherever the avatar lies
        np.testing.assert_array_equal(now.vertices_world(seen.head), was.vertices_world(seen.head))


def test_standard_deviations_come_back_with_their_units(saved) -> None:
    folder, _, state, _ = saved
    loaded = load_fit(folder).uncertainty
    assert loaded.keys() == state.uncertainty.keys()
    for name, value in state.uncertainty.items():
        np.testing.assert_array_equal(loaded[name], value)
    with np.load(folder / "uncertainty.npz") as file:
        units = json.loads(str(file["units"]))
    assert units == {
        "placement": "placement_rotation: rad, placement_translation: m, placement_scale: log",
        "shape": "sigma",
        "jaw_pose": "rad",
    }


def test_landmarks_come_back_in_the_world(saved) -> None:
    folder, _, state, seen = saved
    marks = load_fit(folder).landmarks3d
    assert marks["points"].shape == marks["model"].shape == (1, 80, 3) and marks["used"].all()
    np.testing.assert_allclose(marks["spread_mm"], 0.1 * load_fit(folder).mm_per_unit)
    corners = seen.targets[0].sources[0].landmarks
    on_head = corners.model_points(state.parameters.vertices(seen.head)[0]).numpy()
    inverse = np.linalg.inv(WORLD)
    np.testing.assert_allclose(marks["model"][0], on_head @ inverse[:3, :3].T + inverse[:3, 3], atol=1e-9)


def test_files_are_plain_data(saved) -> None:
    import yaml
    from safetensors import safe_open
    from safetensors.numpy import load_file

    folder, _, state, _ = saved
    assert yaml.safe_load((folder / "config.yml").read_text())["seed"] == 7
    with np.load(folder / "tracked_flame_params.npz", allow_pickle=False) as file:
        assert {*PARAMETER_KEYS, "timestep_id", "image_size", "head_from_world", "lights"} <= set(file.files)
    tensors = load_file(folder / "checkpoint.safetensors")
    np.testing.assert_array_equal(tensors["parameters/shape"], state.parameters.shape.numpy())
    with safe_open(folder / "checkpoint.safetensors", framework="np") as file:
        assert json.loads(file.metadata()["fit"])["stages"][1]["accepted"] is False


def test_a_fit_of_another_head_or_a_broken_file_is_refused(saved, tmp_path: Path) -> None:
    folder, _, _, _ = saved
    loaded = load_fit(folder)
    check_head(loaded, toy_head())
    other = toy_head()
    other.file_hash = "other"
    with pytest.raises(InputError, match="another file of the head model"):
        check_head(loaded, other)
    with pytest.raises(InputError, match="no fit here"):
        load_fit(tmp_path)
    (tmp_path / "tracked_flame_params.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"tracked_flame_params\.npz"):
        load_fit(tmp_path)


def test_the_last_time_stamped_child_is_taken(saved, tmp_path: Path) -> None:
    import shutil

    folder, _, _, _ = saved
    for stamp in ("2024-01-02_00-00-00", "2024-01-01_00-00-00"):
        shutil.copytree(folder, tmp_path / stamp)
    assert load_fit(tmp_path).folder == tmp_path / "2024-01-02_00-00-00"
