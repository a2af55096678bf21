"""Which actions scores tell of."""

import numpy as np
import pytest

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.head.actions import actions_of, choices_of, sides_of
from flame_fitting.head.loading import load_head
from flame_fitting.landmarks.action_scores import (
    UNKNOWN,
    ActionSamples,
    ActionScores,
    Likelihood,
    fit_action_scores,
    found_actions,
    likelihood_of_scores,
    log_odds,
    scored,
)
from flame_fitting.landmarks.mediapipe_detector import MEASURES, SCORE_NAMES

ACTIONS = ("browDownLeft", "browDownRight", "cheekPuff", "mouthSmileLeft", "mouthSmileRight", *UNKNOWN)
SCORES = tuple(f"s{number}" for number in range(12))


def model(seed=0) -> ActionScores:
    rng = np.random.default_rng(seed)
    root = 0.3 * rng.standard_normal((12, 12)) + np.eye(12)
    slopes = 2.0 * rng.standard_normal((len(ACTIONS), 12))
    return ActionScores(ACTIONS, SCORES, rng.standard_normal(12) - 4, slopes, root @ root.T, "toy", "1")


def shown(one: ActionScores, rng: np.random.Generator, **amounts: float) -> np.ndarray:
    error = np.linalg.cholesky(one.covariance) @ rng.standard_normal(len(one.scores))
    return one.mean + sum(a * one.slopes[ACTIONS.index(name)] for name, a in amounts.items()) + error


def test_log_odds_rise_and_are_odd_about_a_half() -> None:
    scores = np.linspace(0, 1, 101)
    odds = log_odds(scores)
    assert (np.diff(odds) > 0).all() and np.isfinite(odds).all()
    np.testing.assert_allclose(odds, -odds[::-1], atol=1e-12)


def test_scores_of_gaze_and_measures_of_eyes_are_left_out() -> None:
    names = scored(MEASURES)
    assert set(names) < set(SCORE_NAMES) and "mouthSmileLeft" in names and "eyeBlinkLeft" in names
    assert not any(name.startswith(("eyeLook", "_")) for name in names)


def test_the_calibration_finds_the_model_that_made_the_samples() -> None:
    truth, rng = model(), np.random.default_rng(1)
    count = 4000
    amounts = rng.uniform(0, 1.5, (count, len(ACTIONS))) * (rng.random((count, len(ACTIONS))) < 0.3)
    errors = rng.standard_normal((count, 12)) @ np.linalg.cholesky(truth.covariance).T
    odds = truth.mean + amounts @ truth.slopes + errors
    found = fit_action_scores(ActionSamples(ACTIONS, SCORES, amounts, odds, np.arange(count) // 4), "toy", "1")
    np.testing.assert_allclose(found.mean, truth.mean, atol=0.15)
    deviation = np.sqrt(np.diag(truth.covariance) / (count * amounts.var(0)[:, None]))
    error = (found.slopes - truth.slopes) / deviation
    assert np.sqrt((error**2).mean()) < 1.3 and np.abs(error).max() < 5
    off = 0.9 * truth.covariance + 0.1 * np.diag(np.diag(truth.covariance))
    np.testing.assert_allclose(found.covariance, off, atol=0.12)


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ({}, set()),
        ({"mouthSmileLeft": 1.2}, {("mouthSmileLeft",)}),
        ({"browDownLeft": 1.0, "browDownRight": 1.0, "cheekPuff": 1.2}, {ACTIONS[:2], ("cheekPuff",)}),
        # what is measured otherwise is no reason to see an action
        ({"jawOpen": 2.0, "eyeBlinkLeft": 1.0}, set()),
    ],
)
def test_few_actions_are_found_and_no_others(amounts, expected) -> None:
    rng, right = np.random.default_rng(3), 0
    for seed in range(20):
        one = model(seed)
        choices = choices_of(one.actions)
        found = found_actions(likelihood_of_scores(one, shown(one, rng, **amounts), choices), choices)
        right += {action.names for action in found} == expected
        for action in found:
            if action.names in expected:
                wanted = amounts[action.names[0]]
                assert abs(action.amount - wanted) < 4 * action.deviation + 0.1 and action.gain > 0
    assert right >= 15, right


def test_two_likelihoods_say_more_than_one() -> None:
    one, choices = model(4), choices_of(ACTIONS)
    told = likelihood_of_scores(one, shown(one, np.random.default_rng(5), mouthSmileLeft=1.0), choices)
    both = found_actions(told + told, choices)[0]
    alone = found_actions(told, choices)[0]
    assert both.names == alone.names and both.deviation < 0.8 * alone.deviation and both.gain > alone.gain
    assert found_actions(Likelihood(np.array([-9.0]), np.array([[9.0]])), choices[:1]) == [], "none is below 0"
    nothing = Likelihood(np.zeros(len(choices)), np.zeros((len(choices),) * 2))
    assert found_actions(nothing, choices) == []
    assert [str(found) for found in found_actions(told + nothing, choices)] == [str(alone)]


def test_sides_and_choices_by_names() -> None:
    names = ("mouthLeft", "mouthRight", "jawForward", "browDownLeft", "browDownRight", "eyeBlinkLeft", "eyeBlinkRight")
    assert sides_of(names) == {
        **{name: (name,) for name in names[:3]},
        "browDown": names[3:5],
        "eyeBlink": names[5:],
    }
    assert choices_of(names) == [*((name,) for name in names[:5]), names[3:5]]


def test_the_shipped_calibration_belongs_to_the_shipped_actions() -> None:
    found, actions = ActionScores.load(assets.shipped_action_scores_path("mediapipe")), actions_of(load_head("open"))
    assert actions is not None and set(actions.names) < set(found.actions)
    assert found.scores == scored(MEASURES)
    assert np.linalg.eigvalsh(found.covariance).min() > 0
    # a smile raises the score of a smile, on its own side more
    slope = dict(zip(found.scores, found.slopes[found.actions.index("mouthSmileLeft")], strict=True))
    assert slope["mouthSmileLeft"] > slope["mouthSmileRight"] > 0


def test_files_are_read_again_and_damaged_ones_refused(tmp_path) -> None:
    one, path = model(), tmp_path / "scores.npz"
    one.save(path)
    again = ActionScores.load(path)
    assert again.actions == one.actions and again.detector_version == "1"
    np.testing.assert_array_equal(again.slopes, one.slopes)
    with np.load(path) as data:
        np.savez(path, **(dict(data) | {"slopes": one.slopes[:, :-1]}))
    with pytest.raises(InputError, match=r"scores\.npz: not a calibration of expression scores"):
        ActionScores.load(path)
