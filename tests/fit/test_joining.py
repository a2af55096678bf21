"""How captures come into one world: random similarities, ratios of units, what expressions do to landmarks."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flame_fitting.capture.joining import part_names
from flame_fitting.capture.similarity import apply_similarity, decompose_similarity, similarity_matrix
from flame_fitting.fit.joining import FACTORS, NEAR_FACTOR, move_between
from flame_fitting.landmarks.schemes import inner_weights
from tests.bare_capture import bare_capture

WEIGHTS = inner_weights()


def face(seed: int) -> np.ndarray:
    """51 points of a face, metres."""
    return np.random.default_rng(seed).normal(size=(51, 3)) * [0.035, 0.045, 0.02]


def moved_mouth(points: np.ndarray, by: float) -> np.ndarray:
    """The same with another expression: the mouth's points elsewhere, all with a detector's noise."""
    out = points + np.random.default_rng(9).normal(size=points.shape) * 5e-4
    out[31:] += [0.0, -by, 0.0]
    return out


def random_motion(seed: int, scale: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return similarity_matrix(scale, Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3))


@pytest.mark.parametrize("factor", FACTORS)
def test_a_ratio_of_common_units_is_found_exactly_whatever_the_face_does(factor: float) -> None:
    for seed in range(5):
        first = face(seed)
        world_from_own = random_motion(seed, factor)
        own = apply_similarity(np.linalg.inv(world_from_own), moved_mouth(first, 0.006))
        found = move_between(own, first, WEIGHTS)
        scale, rotation, _ = decompose_similarity(found.matrix)
        assert found.exact and scale == pytest.approx(factor, rel=1e-12)
        turn = Rotation.from_matrix(rotation.T @ decompose_similarity(world_from_own)[1]).magnitude()
        assert np.degrees(turn) < 3.0
        still = apply_similarity(found.matrix, own)[:31]
        assert np.linalg.norm(still - first[:31], axis=1).max() < 0.004


def test_units_of_one_capture_do_not_change_how_it_comes_into_the_other() -> None:
    first, own = face(1), apply_similarity(random_motion(4, 1.0), face(1))
    one, two = (move_between(k * own, first, WEIGHTS).matrix @ np.diag([k, k, k, 1]) for k in (1.0, 1000.0))
    assert np.allclose(one, two, atol=1e-9)


def test_another_ratio_is_taken_as_it_is_and_said() -> None:
    first = face(2)
    odd = 2.0
    assert all(abs(odd / factor - 1) > NEAR_FACTOR for factor in FACTORS)
    found = move_between(apply_similarity(random_motion(3, 1 / odd), first), first, WEIGHTS)
    assert not found.exact and decompose_similarity(found.matrix)[0] == pytest.approx(odd, rel=1e-6)


def test_what_stands_alike_stays_untouched() -> None:
    first = face(3)
    assert np.array_equal(move_between(moved_mouth(first, 0.004), first, WEIGHTS).matrix, np.eye(4))
    shifted = move_between(first + [0.05, 0.0, 0.0], first, WEIGHTS)
    assert np.allclose(shifted.matrix[:3, 3], [-0.05, 0.0, 0.0], atol=1e-6)


def test_points_that_one_lacks_are_left_out() -> None:
    first, motion = face(4), random_motion(6, 0.1)
    own = apply_similarity(np.linalg.inv(motion), first)
    own[3], first[7] = np.nan, np.nan
    assert np.allclose(move_between(own, first, WEIGHTS).matrix, motion, atol=1e-6)


def test_timesteps_are_called_by_their_captures_and_none_twice(tmp_path) -> None:
    captures = [bare_capture(tmp_path / name / "render", steps) for name, steps in (("a", 1), ("b", 1), ("c", 2))]
    assert part_names(captures) == [("render",), ("render (2)",), ("render (3)/00000", "render (3)/00001")]
