"""The mode of what timesteps share with the timesteps integrated out: its slope, and that it is not biased."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from flame_fitting.fit.solvers.block_arrow import BlockArrow, BlockVector
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.gauss_newton import MARGINAL_STEPS, _believed, gauss_newton
from flame_fitting.fit.solvers.levenberg_marquardt import newton_factors
from flame_fitting.fit.solvers.marginal import FrameVolume
from flame_fitting.fit.solvers.problem import Problem
from flame_fitting.fit.solvers.residuals import Projections
from tests.fit.known_truth import sequence
from tests.fit.settings import second_order_of
from tests.fit.solvers.test_focal import ASSUMED, TRUE, seen_by_one_camera
from tests.fit.solvers.test_posterior import POINTS, PRIOR, SMOOTH, _columns, _drawn
from tests.toy import toy_head


def _half_log_determinant(problem, parameters) -> float:
    """Of the Hessian of the timesteps, with one Cholesky factorisation of the dense matrix."""
    system, *_ = problem.linearised(problem.begin(parameters), 0.01)
    steps, size = system.diagonal.shape[:2]
    dense = torch.block_diag(*system.diagonal)
    for t, (a, b) in enumerate(pairwise(range(0, steps * size, size))):
        dense[b : b + size, a : a + size] = system.below[t]
        dense[a : a + size, b : b + size] = system.below[t].mT
    return float(torch.linalg.cholesky(dense).diagonal().log().sum())


@pytest.mark.parametrize("metric", [False, True])
def test_pull_is_the_slope_of_the_half_log_determinant_along_the_timesteps_mode(metric):
    """By central differences at exact data; the timesteps follow by -H^-1 A ds."""
    head, truth, targets, _ = sequence(3)
    columns = replace(_columns(head, 3, shape=4), metric=metric)
    settings = second_order_of(iterations=0, landmark_cut=1e6, smoothness=SMOOTH)
    problem = Problem(head, targets, columns, PRIOR, settings, None, truth)
    system, gradient, _, terms = problem.linearised(problem.begin(truth), 0.01)
    held = torch.zeros_like(gradient.frames, dtype=torch.bool)
    pull = FrameVolume(head, columns, problem.chosen).pull(truth, terms, system, held)
    at, factors = columns.values(truth), system.frames_alone().factorised()
    assert pull is not None and pull.shape == at.shared.shape == (5,)
    for k, slope in enumerate(pull):
        along = torch.eye(5, dtype=torch.float64)[k] * 1e-4
        followed = factors.solve(BlockVector(along[:0], -system.arrow @ along)).frames
        ahead, behind = (
            columns.with_values(truth, BlockVector(at.shared + sign * along, at.frames + sign * followed))
            for sign in (1, -1)
        )
        expected = (_half_log_determinant(problem, ahead) - _half_log_determinant(problem, behind)) / 2e-4
        assert float(slope) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    # nothing is integrated out where every unknown of the timesteps is held
    none = FrameVolume(head, columns, problem.chosen).pull(truth, terms, system, ~held)
    assert none is not None and not none.any()


def test_the_scale_is_not_biased_by_the_timesteps():
    """Truth drawn from the model, unknowns in the head's own unit: scores have mean 0, those of the joint mode do not.

    The first identity component is a head's size, as in real models: expressions alone tell it from the scale.
    """
    head, steps, scores = toy_head().double(), 20, {0: [], MARGINAL_STEPS: []}
    head.shapedirs[..., 0] = 0.05 * head.v_template
    columns = _columns(head, steps)
    for seed in range(4):
        truth, targets = _drawn(head, steps, seed, sigma=4e-3)
        for marginal, found in scores.items():
            settings = second_order_of(
                iterations=20, landmark_count=POINTS, landmark_cut=1e6, smoothness=SMOOTH, marginal=marginal
            )
            solution = gauss_newton(head, truth, targets, columns, PRIOR, settings)
            sigma = solution.posterior.standard_deviations(truth)["placement"][6]
            found.append(float(solution.parameters.placement[6] - truth.placement[6]) / sigma)
    # of four standard normal scores the mean is larger than 1.25 once in eighty times
    assert abs(np.mean(scores[MARGINAL_STEPS])) < 1.25 < 2.0 < np.mean(scores[0])


def test_pull_knows_the_focal_length():
    """The same with one camera that is not known; the distance counts by its logarithm."""
    truth, seen = seen_by_one_camera(3)
    truth.log_focal[0] = np.log(TRUE / ASSUMED)
    head, names = seen.head, ("log_focal", "shape", "expr", "rotation", "translation")
    columns = Columns.of(head, names, {"shape": 2, "expr": 2}, metric=True)
    settings = second_order_of(iterations=0, landmark_cut=1e6, smoothness=SMOOTH)
    problem = Problem(head, seen.targets, columns, PRIOR, settings, None, truth)
    system, gradient, _, terms = problem.linearised(problem.begin(truth), 0.01)
    held = torch.zeros_like(gradient.frames, dtype=torch.bool)
    pull = FrameVolume(head, columns, problem.chosen).pull(truth, terms, system, held)
    at, factors = columns.values(truth), system.frames_alone().factorised()
    assert pull is not None and pull.shape == at.shared.shape == (3,)
    column = columns.slices()["log_focal"].start

    def volume(parameters) -> float:
        total = _half_log_determinant(problem, parameters)
        for t, measured in enumerate(terms):
            vertices = problem._linearizer.vertices(parameters, t)
            total += sum(float(one.depths(vertices).mean().log()) for one in measured if isinstance(one, Projections))
        return total

    for k, slope in enumerate(pull):
        along = torch.eye(3, dtype=torch.float64)[k] * 1e-4
        followed = factors.solve(BlockVector(along[:0], -system.arrow @ along)).frames
        ends = [
            columns.with_values(truth, BlockVector(at.shared + sign * along, at.frames + sign * followed))
            for sign in (1, -1)
        ]
        expected = (volume(ends[0]) - volume(ends[1])) / 2e-4
        assert float(slope) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    # a longer lens at a larger distance shows the same: it gains nothing
    assert abs(float(pull[column])) < 3.0


def test_a_pull_moves_a_focal_length_no_farther_than_it_is_known() -> None:
    """Of two unknowns with one frame's: the share of a pull that moves the first by one standard deviation."""
    full = torch.tensor([[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 2.0]], dtype=torch.float64)
    system = BlockArrow(full[:2, :2], full[2:, :2][None], full[2:, 2:][None], full[2:, 2:][None][:0])
    inverse = torch.linalg.inv(full)
    deviation = float(inverse[0, 0].sqrt())
    factors = newton_factors(system)
    assert factors is not None
    for strength in (0.01, 1.0, 10.0):
        pull = strength * torch.tensor([1.0, -2.0], dtype=torch.float64)
        moved = abs(float(inverse[0, :2] @ pull))
        assert _believed(factors, pull, 0) == pytest.approx(min(1.0, deviation / moved))
