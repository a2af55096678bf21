"""Known perturbations of a known motion give known numbers."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from scripts.tracking import motion


@pytest.fixture()
def moving() -> np.ndarray:
    """(20, 30, 3) points that each go their way, m."""
    rng = np.random.default_rng(0)
    rest, phase = rng.normal(size=(30, 3)), rng.uniform(0, 6, (30, 3))
    return rest + 0.01 * np.sin(np.arange(20)[:, None, None] / 3 + phase)


def test_gain_is_the_share_of_the_motion_that_is_followed(moving: np.ndarray) -> None:
    middle = moving.mean(0)
    for share in (0.5, 1.0, 1.3):
        followed = middle + share * (moving - middle)
        value, size = motion.gain(followed + 0.2, moving)  # a constant error is no motion
        assert value == pytest.approx(share) and size == pytest.approx(np.sqrt(((moving - middle) ** 2).sum(-1).mean()))
    gaps = np.sin(np.arange(50.0))[:, None]
    assert motion.gain(0.5 * gaps, gaps)[0] == pytest.approx(0.5)
    assert motion.gain(0.5 * gaps, gaps)[1] == pytest.approx(gaps.std())
    # errors that do not depend on the motion are no gain
    noise = np.random.default_rng(1).normal(scale=0.01, size=(20, 30, 3))
    assert motion.gain(middle + 0.5 * (moving - middle) + noise, moving)[0] == pytest.approx(0.5, abs=0.1)


def test_what_does_not_move_has_no_gain(moving: np.ndarray) -> None:
    still = np.broadcast_to(moving[:1], moving.shape)
    value, size = motion.gain(moving, still)
    assert np.isnan(value) and size == pytest.approx(0, abs=1e-9)


def test_jitter_of_an_alternating_error_is_four_times_its_size() -> None:
    error = np.zeros((12, 5, 3))
    error[:, :, 0] = 0.3 * (-1.0) ** np.arange(12)[:, None]
    assert motion.jitter(error) == pytest.approx(4 * 0.3)
    # an error that stays or grows steadily is no jitter
    steady = np.arange(12.0)[:, None, None] * np.ones((12, 5, 3))
    assert motion.jitter(steady) == pytest.approx(0, abs=1e-12)
    assert motion.jitter(error + steady) == pytest.approx(4 * 0.3)
    assert np.isnan(motion.jitter(error[:2]))


def test_jitter_across_timesteps_that_are_not_shown_does_not_count() -> None:
    error = np.zeros((12, 5, 3))
    error[6] = 7.0
    shown = np.arange(12) != 6
    assert motion.jitter(error) > 1 and motion.jitter(error, shown) == 0


def test_a_similarity_takes_its_own_error_and_no_other(moving: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    turn = Rotation.random(len(moving), random_state=3).as_matrix()
    other = 1.7 * np.einsum("tab,tvb->tva", turn, moving) + rng.normal(size=(len(moving), 1, 3))
    assert np.abs(other - moving).max() > 1
    assert np.abs(motion.by_similarity(other, moving) - moving).max() < 1e-9
    # what it is found from, and what is moved by it, may differ
    assert np.abs(motion.by_similarity(other[:, :10], moving[:, :10], other) - moving).max() < 1e-9
    bent = other.copy()
    bent[:, 0] += 0.5
    assert np.linalg.norm(motion.by_similarity(bent, moving) - moving, axis=-1)[:, 0].min() > 0.2


def test_angles() -> None:
    one = motion.turns(np.array([[0.1, 0.2, 0.3], [0.0, 0.0, 0.0]]))
    more = one @ motion.turns(np.radians([[0.0, 5.0, 0.0], [0.0, 0.0, -90.0]]))
    np.testing.assert_allclose(motion.angle_between(one, more), [5.0, 90.0], atol=1e-9)


def test_the_size_of_a_head_is_found_wherever_it_stands() -> None:
    rng = np.random.default_rng(0)
    true = rng.standard_normal((5, 40, 3))
    turned = np.stack([Rotation.random(random_state=t).apply(points) for t, points in enumerate(true)])
    found = 0.8 * turned + rng.standard_normal((5, 1, 3))
    assert motion.size_of(found, true) == pytest.approx(0.8)
    found[2] *= 3.0  # a timestep that went wrong does not decide
    assert motion.size_of(found, true) == pytest.approx(0.8)


def test_a_constant_turn_is_no_motion() -> None:
    rng = np.random.default_rng(0)
    true = Rotation.from_rotvec(0.3 * rng.standard_normal((12, 3)))
    constant = Rotation.from_rotvec([0.1, -0.05, 0.02])
    shaken = Rotation.from_rotvec(0.01 * rng.standard_normal((12, 3)))
    steady = motion.without_constant_turn((true * constant).as_matrix(), true.as_matrix())
    assert motion.angle_between(steady, true.as_matrix()).max() < 1e-5
    moving = motion.without_constant_turn((true * shaken * constant).as_matrix(), true.as_matrix())
    left = motion.angle_between(moving, true.as_matrix()).mean()
    assert left == pytest.approx(np.degrees(shaken.magnitude()).mean(), rel=0.2)
