"""Which facial actions a face shows, by a detector's expression scores.

A detector's scores are far from linear: a whole smile of one head is a score of 0.9, of another one 0.03, and a face at
rest is at 0.0001. Their logarithms of odds are nearly linear in the amounts of the actions,
    l = m + a B + e,  e ~ N(0, C),
with what persons, skins and views make of them in C, which is known of drawn heads (`avatar.action_pictures`). Few
actions are shown at once: they are found one after the other, each by the ratio of likelihoods with it and without.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import log_ndtr

from flame_fitting.errors import InputError
from flame_fitting.files import atomic_write, read_npz, reason
from flame_fitting.head.actions import JAW

_FLOOR = 1e-3
"""Odds below this say no more than this."""
_LEFT_OUT = (
    "_neutral",
    "eyeLook",
    "eyeIris",
    "eyeBall",
    "eyeGaze",
    "eyeUpperRim",
    "eyeLowerRim",
    "eyeOuter",
    "eyeInner",
)
"""Scores of the gaze, and what is no score, by their beginnings."""
_SHRINK = 0.1
"""Of the covariance of errors toward its diagonal."""
_RIDGE = 2.0
"""Samples' worth of an amount of 1 that slopes are held back by."""
_FOLDS = 5
UNKNOWN = ("eyeBlinkLeft", "eyeBlinkRight", JAW)
"""Actions that are measured otherwise."""
RARE, LESS_RARE = 0.02, 0.1
"""Prior odds of any one choice in a face that shows nothing yet, and in one that shows something."""
SPREAD = 1.0
"""Standard deviation of the amount of an action that is shown."""
MOST = 6
"""Actions at once."""


def scored(names: Sequence[str]) -> tuple[str, ...]:
    """The scores that are looked at, among all of a detector's."""
    return tuple(name for name in names if not name.startswith(_LEFT_OUT))


def log_odds(scores: Float[ndarray, "..."]) -> Float[ndarray, "..."]:
    """Of scores 0 to 1."""
    held = np.clip(np.asarray(scores, dtype=np.float64), 0, 1)
    return np.log((held + _FLOOR) / (1 - held + _FLOOR))


@dataclass(frozen=True, eq=False)
class ActionSamples:
    """Faces with known actions, and what a detector says of them."""

    actions: tuple[str, ...]
    scores: tuple[str, ...]
    amounts: Float[ndarray, "N A"]
    odds: Float[ndarray, "N S"]
    """Logarithms, means over the views of a face."""
    identity: Int[ndarray, " N"]


@dataclass(frozen=True, eq=False)
class ActionScores:
    """How scores tell actions."""

    actions: tuple[str, ...]
    scores: tuple[str, ...]
    mean: Float[ndarray, " S"]
    """At rest."""
    slopes: Float[ndarray, "A S"]
    covariance: Float[ndarray, "S S"]
    """Of what actions do not explain, in persons that took no part."""
    detector: str
    detector_version: str

    def save(self, path: Path) -> None:
        """Writes an .npz file."""
        arrays: dict[str, Any] = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def load(cls, path: Path) -> "ActionScores":
        """Reads what `save` wrote."""
        advice = "Install the program again, or make it with: python scripts/calibrate_actions.py"
        arrays = read_npz(path, advice)
        try:
            actions, scores = (tuple(str(name) for name in arrays[key]) for key in ("actions", "scores"))
            mean, slopes, covariance = (arrays[key].astype(np.float64) for key in ("mean", "slopes", "covariance"))
            count, size = len(actions), len(scores)
            if (mean.shape, slopes.shape, covariance.shape) != ((size,), (count, size), (size, size)):
                raise ValueError("names and numbers do not belong together")
            detector, version = (str(arrays[key]) for key in ("detector", "detector_version"))
            return cls(actions, scores, mean, slopes, covariance, detector, version)
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path}: not a calibration of expression scores ({reason(error)}). {advice}") from error


def fit_action_scores(samples: ActionSamples, detector: str, detector_version: str) -> ActionScores:
    """Ridge regression; errors are those in persons that took no part."""
    design = np.concatenate([np.ones((len(samples.amounts), 1)), samples.amounts], axis=1)
    # an amount of the jaw is an angle
    size = np.maximum(samples.amounts.max(0), 1e-9)
    held = np.diag([1e-9, *(_RIDGE * size**2)])

    def solved(rows: ndarray) -> ndarray:
        some = design[rows]
        return np.asarray(np.linalg.solve(some.T @ some + held, some.T @ samples.odds[rows]))

    fold = np.unique(samples.identity, return_inverse=True)[1] % _FOLDS
    error = np.empty_like(samples.odds)
    for number in range(_FOLDS):
        test = fold == number
        if test.any():
            error[test] = samples.odds[test] - design[test] @ solved(~test)
    found, covariance = solved(np.full(len(design), True)), error.T @ error / len(error)
    covariance = (1 - _SHRINK) * covariance + _SHRINK * np.diag(np.diag(covariance))
    return ActionScores(samples.actions, samples.scores, found[0], found[1:], covariance, detector, detector_version)


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Of the amounts a (K,) of K choices of actions, as something tells them: its logarithm is g a - a H a / 2."""

    slope: Float[ndarray, " K"]
    """g"""
    curvature: Float[ndarray, "K K"]
    """H"""

    def __add__(self, other: "Likelihood") -> "Likelihood":
        """Of both, where they are independent."""
        return Likelihood(self.slope + other.slope, self.curvature + other.curvature)


def likelihood_of_scores(
    model: ActionScores,
    odds: Float[ndarray, " S"],
    choices: Sequence[tuple[str, ...]],
    unknown: Sequence[str] = UNKNOWN,
) -> Likelihood:
    """As scores tell them: `odds` are logarithms, by the model's scores; actions of `unknown` may be there by any
    amount."""
    row = {name: number for number, name in enumerate(model.actions)}
    slopes = np.array([model.slopes[[row[name] for name in names]].sum(0) for names in choices])
    others = model.slopes[[row[name] for name in unknown]]
    precision = np.linalg.inv(model.covariance + others.T @ others)
    return Likelihood(slopes @ precision @ (odds - model.mean), slopes @ precision @ slopes.T)


@dataclass(frozen=True)
class FoundAction:
    """An action that a face shows."""

    names: tuple[str, ...]
    """One side, or both alike."""
    amount: float
    deviation: float
    gain: float
    """Logarithm of the ratio of probabilities that it is shown and that it is not."""

    def __str__(self) -> str:
        """As logs have it: mouthSmileLeft 0.7."""
        name = self.names[0] if len(self.names) == 1 else self.names[0].removesuffix("Left")
        return f"{name} {self.amount:.1f}"


def found_actions(told: Likelihood, choices: Sequence[tuple[str, ...]], spread: float = SPREAD) -> list[FoundAction]:
    """The actions that a likelihood speaks for, one after the other, the surest first.

    Amounts are above 0, with a standard deviation of `spread`. One action is rare, another one beside it less so.
    """
    chosen, gains = list[int](), list[float]()
    while len(chosen) < MOST:
        inverse = np.linalg.inv(told.curvature[np.ix_(chosen, chosen)] + np.eye(len(chosen)) / spread**2)
        beside = told.curvature[:, chosen] @ inverse
        slope = told.slope - beside @ told.slope[chosen]
        curved = told.curvature.diagonal() - (beside * told.curvature[:, chosen]).sum(1) + 1 / spread**2
        gain = 0.5 * slope**2 / curved - 0.5 * np.log(curved * spread**2) + log_ndtr(slope / np.sqrt(curved))
        gain += np.log(2 * (RARE if not chosen else LESS_RARE))
        gain[chosen] = -np.inf
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        chosen.append(best)
        gains.append(float(gain[best]))
    covariance = np.linalg.inv(told.curvature[np.ix_(chosen, chosen)] + np.eye(len(chosen)) / spread**2)
    found = zip(chosen, covariance @ told.slope[chosen], np.sqrt(covariance.diagonal()), gains, strict=True)
    return [FoundAction(choices[k], float(a), float(std), gain) for k, a, std, gain in found if a > 0]
