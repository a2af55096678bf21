"""A truth that is bent in a known way is measured to be off by just that."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flame_fitting.avatar.head_calibration import shipped_embedding
from flame_fitting.fit.result import FitResult
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.embedding_schemes import for_scheme
from scripts.tracking import measure
from scripts.tracking.cases import BY_NAME
from scripts.tracking.course import make_course

FRAMES = 8
ALL = np.ones(FRAMES, dtype=bool)


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head("open").double()


@pytest.fixture(scope="module")
def embedding(head: HeadModel) -> LandmarkEmbedding:
    shipped = shipped_embedding(head, "mediapipe", "textured")
    assert shipped is not None
    return for_scheme(shipped, "ibug68", head)


@pytest.fixture(scope="module")
def truth(head: HeadModel) -> FitResult:
    rng = np.random.default_rng(0)
    course = make_course(BY_NAME["rig"], FRAMES, head.n_expr, np.zeros(3), 1.0, rng)
    names = ("expr", "rotation", "translation", "neck_pose", "jaw_pose", "eyes_pose")
    parameters = {name: getattr(course, name) for name in names}
    parameters |= {"shape": rng.normal(size=head.n_shape), "static_offset": np.zeros((1, head.n_vertices, 3))}
    steps = [f"{t}" for t in range(FRAMES)]
    return FitResult(head.name, head.file_hash, parameters, np.eye(4), (64, 64), steps)


def bent(truth: FitResult, **parameters: Any) -> FitResult:
    return replace(truth, parameters=truth.parameters | parameters)


def test_the_truth_has_no_error(truth: FitResult, head: HeadModel, embedding: LandmarkEmbedding) -> None:
    for monocular in (False, True):
        errors = measure.surface_errors(truth, truth, head, ~ALL, monocular)
        assert all(errors[name] < 1e-6 for name in ("surface_median", "surface_p95", "vertex_median", "jitter"))
    # acos of a trace that is rounded is no better
    assert max(measure.angles(truth, truth, ALL).values()) < 1e-5
    gains = measure.gains(truth, truth, head, embedding, ALL)
    assert all(value == pytest.approx(1) for name, value in gains.items() if name.startswith("gain_"))
    assert gains["moved_jaw"] > 3 and gains["moved_lids"] > 0.3 and gains["moved_brows"] > 0.1


def test_a_shift_counts_with_known_cameras_and_not_after_a_similarity(truth: FitResult, head: HeadModel) -> None:
    shifted = bent(truth, translation=truth.parameters["translation"] + [0.0, 0.0, 0.002])
    errors = measure.surface_errors(shifted, truth, head, ~ALL, False)
    assert errors["vertex_median"] == pytest.approx(2) and 0.2 < errors["surface_median"] < 2
    assert errors["vertex_by_area"] == pytest.approx(2) and errors["jitter"] == pytest.approx(0, abs=1e-6)
    assert measure.surface_errors(shifted, truth, head, ~ALL, True)["vertex_median"] == pytest.approx(0, abs=1e-6)


def test_timesteps(truth: FitResult, head: HeadModel) -> None:
    step = np.zeros((FRAMES, 3))
    step[:, 0] = 0.001 * (-1.0) ** np.arange(FRAMES)
    step[-1, 0], step[3, 0] = -0.003, 0.02
    left_out = np.arange(FRAMES) == 3
    moved = bent(truth, translation=truth.parameters["translation"] + step)
    errors = measure.surface_errors(moved, truth, head, left_out, False)
    assert errors["vertex_median"] == pytest.approx(1) and errors["vertex_left_out"] == pytest.approx(20)
    assert errors["vertex_worst"] == pytest.approx(3) and errors["last_over_others"] == pytest.approx(3)
    alternating = bent(truth, translation=truth.parameters["translation"] + step.clip(-0.001, 0.02))
    assert measure.surface_errors(alternating, truth, head, left_out, False)["jitter_shown"] == pytest.approx(4)


def test_gain_of_half_a_motion_is_half(truth: FitResult, head: HeadModel, embedding: LandmarkEmbedding) -> None:
    expr = truth.parameters["expr"]
    still = {name: np.zeros((FRAMES, 3)) for name in ("jaw_pose", "neck_pose", "rotation")}
    true = bent(truth, **still)
    half = bent(true, expr=expr.mean(0) + 0.5 * (expr - expr.mean(0)))
    gains = measure.gains(half, true, head, embedding, ALL)
    # lips' and lids' gaps, brows and chin follow the coefficients all but linearly
    assert all(value == pytest.approx(0.5, abs=0.02) for name, value in gains.items() if name.startswith("gain_"))
    shut = bent(truth, jaw_pose=0.5 * truth.parameters["jaw_pose"])
    gains = measure.gains(shut, truth, head, embedding, ALL)
    assert 0.4 < gains["gain_jaw"] < 0.65 and gains["gain_brows"] == pytest.approx(1, abs=1e-3)


def test_the_head_s_own_motion_is_no_gain(truth: FitResult, head: HeadModel, embedding: LandmarkEmbedding) -> None:
    names = ("rotation", "translation", "neck_pose")
    elsewhere = bent(truth, **{name: np.zeros((FRAMES, 3)) for name in names})
    gains = measure.gains(elsewhere, truth, head, embedding, ALL)
    assert all(value == pytest.approx(1) for name, value in gains.items() if name.startswith("gain_"))


def test_angles_tell_the_head_from_its_neck(truth: FitResult) -> None:
    true = bent(truth, neck_pose=np.zeros((FRAMES, 3)), rotation=np.zeros((FRAMES, 3)))
    by_neck = bent(true, neck_pose=np.tile([0.0, np.radians(4), 0.0], (FRAMES, 1)))
    by_root = bent(true, rotation=np.tile([0.0, np.radians(4), 0.0], (FRAMES, 1)))
    found = measure.angles(by_neck, by_root, ALL)
    assert found.pop("neck_degrees") == pytest.approx(4)
    assert found == pytest.approx(dict.fromkeys(found, 0), abs=1e-5)  # a constant turn is no motion
    jaw = bent(true, jaw_pose=true.parameters["jaw_pose"] + [np.radians(2), 0, 0])
    assert measure.angles(jaw, true, ALL)["jaw_degrees"] == pytest.approx(2, abs=0.01)
    # a turn of the world is a turn of the head
    turned = replace(true, head_from_world=measure.motion.turns(np.array([[0, 0, 0.1]]))[0])
    whole = np.eye(4)
    whole[:3, :3] = turned.head_from_world
    assert measure.angles(replace(true, head_from_world=whole), true, ALL)["head_degrees"] == pytest.approx(
        np.degrees(0.1)
    )
