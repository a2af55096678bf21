"""What is known beforehand of several moments of one person, in no order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import progress
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.presets import preset
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.solvers.moments import ABOUT_AS_NEAR, in_words, moments_of, nearest_to_rest, not_at_rest
from flame_fitting.fit.solvers.priors import make_priors
from flame_fitting.fit.solvers.second_order import solve
from flame_fitting.fit.state import FitState
from flame_fitting.head.apertures import GAP_NAMES, GAZE_NAMES
from flame_fitting.landmarks.evidence import Evidence
from flame_fitting.landmarks.mediapipe_detector import SCORE_NAMES
from tests.fit.known_truth import sequence

STATIC = preset("static", Path("unused"))


def evidence_with(size: float) -> Evidence:
    """Scores of a size, the gaze's beside them much larger."""
    telling = np.array([not name.startswith(("eyeLook", "_")) for name in SCORE_NAMES])
    scores = np.where(telling, size / np.sqrt(telling.sum()), 0.99)
    count = len(GAP_NAMES) + len(GAZE_NAMES)
    return Evidence(np.full(count, 1.0), np.full(count, 0.3), np.full(count, 0.3), np.log(scores / (1 - scores)))


def seen_with(sizes: list[float | None], **changes: object) -> Observations:
    head, _, targets, surface = sequence(len(sizes))
    for row, size in enumerate(sizes):
        if size is not None:
            source = replace(targets[row].sources[0], evidence=evidence_with(size))
            targets[row] = replace(targets[row], sources=(source,))
    return Observations(head, targets, surface, moments=tuple("abcdef"[: len(sizes)]), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sizes", "row"),
    [
        ([0.8, 0.4, 0.9], 1),
        ([0.4 * ABOUT_AS_NEAR - 0.01, 0.4, 0.9], 0),
        ([0.8, None, 0.1], 0),
        ([None, None, None], 0),
    ],
)
def test_the_moment_nearest_to_rest_is_the_one_of_the_least_scores(sizes: list[float | None], row: int) -> None:
    assert nearest_to_rest(seen_with(sizes)) == row
    assert nearest_to_rest(seen_with(sizes, at_rest=2)) == 2


def test_it_alone_keeps_the_prior_of_a_face_at_rest() -> None:
    seen = seen_with([0.8, 0.4, 0.9])
    stage = Stage("geo_init_all", STATIC.pipeline.geo_init_all, STATIC)
    moments = moments_of(seen, STATIC, not_at_rest(seen, stage))
    assert [one.prior.expr for one in moments] == [1.0, STATIC.prior.expr, 1.0]
    columns = Columns.of(seen.head, ["shape", "expr", "jaw_pose"])
    like = torch.zeros(1, dtype=torch.float64)
    found = make_priors(columns, STATIC.prior, {}, 3, like, moments=moments)
    rows = slice(*(k - columns.n_shared for k in (columns.slices()["expr"].start, columns.slices()["expr"].stop)))
    wide, narrow = found.diagonal[0, rows, rows], found.diagonal[1, rows, rows]
    assert torch.allclose(narrow, wide / STATIC.prior.expr**2) and torch.allclose(wide, torch.eye(len(wide)).double())
    assert not found.below.any()
    of_rows = seen.of_frames([1, 2])
    assert of_rows.moments == ("b", "c") and nearest_to_rest(of_rows) == 0
    assert not_at_rest(replace(seen, moments=()), stage) == ()


@pytest.mark.parametrize("flag", ["neutral", "expressive"])
def test_flags_decide_for_all_moments(flag: str) -> None:
    config = replace(STATIC, **{flag: True})
    moments = moments_of(seen_with([0.8, 0.4]), config, (None, None))
    assert len({one.prior.expr for one in moments}) == 1 and all(one.active is None for one in moments)


def test_what_is_not_at_rest_is_said_by_the_moments_name() -> None:
    assert in_words((None, None), ("a", "b")) == ()
    assert in_words((None,), ("a",)) == ()


def test_two_moments_give_one_shape_and_two_expressions_whatever_their_order() -> None:
    head, truth, targets, surface = sequence(2, seed=3)
    found = []
    for order in ([0, 1], [1, 0]):
        seen = Observations(head, [targets[k] for k in order], surface, moments=("a", "b"))
        state = FitState(FitParameters.neutral(head, 2), np.eye(4))
        start = replace(state.parameters, rotation=truth.rotation[order], translation=truth.translation[order])
        stage = Stage("geo_init_all", replace(STATIC.pipeline.geo_init_all, num_steps=15), STATIC)
        with progress.silent(), progress.Bar(15, "x", "step") as shown:
            found.append(solve(replace(state, parameters=start), seen, stage, shown).parameters)
    one, two = found
    for result, order in zip(found, ([0, 1], [1, 0]), strict=True):
        vertices = result.vertices(head)
        assert (vertices - truth.vertices(head)[order]).norm(dim=-1).median() < 2e-4
        changed, true = result.expr[1] - result.expr[0], truth.expr[order[1]] - truth.expr[order[0]]
        assert (changed - true).abs().max() < 0.15
    assert one.shape.shape == two.shape.shape == truth.shape.shape
    # the moment that counts as rest is the first where nothing tells: shape differs by no more than its prior's share
    assert (one.shape - two.shape).abs().max() < 0.2
