"""Posterior covariances: against dense algebra, and against the errors of fits whose truth is drawn from the model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from flame_fitting.fit.parameters import VERGENCE, FitParameters, moving_parts
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.gauss_newton import gauss_newton
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target
from flame_fitting.fit.weight_config import PriorConfig
from tests.fit.known_truth import chain_cost, embedding_on, sequence
from tests.fit.settings import second_order_of
from tests.toy import toy_head

JOINTS = ("neck_pose", "jaw_pose", "eyes_pose")
EVERYTHING = ("pose", "scale", "joints", "shape", "expr")
PRIOR = PriorConfig(shape=1.0, expr=0.3, neck=0.05, jaw=0.1, eyes=0.1, log_scale=0.03)
SMOOTH = {"rotation": 0.03, "translation": 0.003, "expr": 0.1}
SEEDS = 40
POINTS = 150


def _columns(head, timesteps, **components):
    return Columns.of(head, [part.name for part in moving_parts(EVERYTHING, timesteps > 1, JOINTS)], components)


def test_standard_deviations_are_those_of_the_dense_inverse():
    """The curvature of the whole cost by autograd at exact data, where Gauss-Newton's is exact; three timesteps."""
    head, truth, targets, _ = sequence(3)
    columns = _columns(head, 3, shape=4)
    settings = second_order_of(iterations=0, landmark_cut=1e6, smoothness=SMOOTH)
    posterior = gauss_newton(head, truth, targets, columns, PRIOR, settings).posterior
    shapes = {b.part.name: getattr(truth, b.parameter)[..., b.coefficients].shape for b in columns.blocks}
    leaves = {b.part.name: getattr(truth, b.parameter)[..., b.coefficients].flatten() for b in columns.blocks}
    sizes = [value.numel() for value in leaves.values()]

    def cost(flat):
        own = {name: piece.reshape(shapes[name]) for name, piece in zip(leaves, flat.split(sizes), strict=True)}
        p = replace(
            truth,
            placement=torch.cat([truth.placement[:6], own.pop("placement_scale")]),
            shape=torch.cat([own.pop("shape"), truth.shape[4:]]),
            **own,
        )
        jaw = torch.tensor([1, 1 / 3, 1 / 10]) * PRIOR.jaw
        out = 0.5 * ((p.shape[:4] / PRIOR.shape).square().sum() + (p.placement[6] / PRIOR.log_scale).square())
        sigmas = {"expr": PRIOR.expr, "neck_pose": PRIOR.neck, "jaw_pose": jaw, "eyes_pose": PRIOR.eyes}
        for name, sigma in (sigmas | {"rotation": None, "translation": None}).items():
            out = out + chain_cost(getattr(p, name), sigma, SMOOTH.get(name))
        out = out + 0.5 * ((p.eyes_pose[:, :3] - p.eyes_pose[:, 3:]) / VERGENCE).square().sum()
        for vertices, target in zip(p.vertices(head), targets, strict=True):
            marks = target.sources[0].landmarks
            squared = (marks.model_points(vertices) - marks.points).square().sum(-1) / marks.sigma**2
            out = out + 0.5 * 60.0 / len(squared) * squared.sum()
        return out

    hessian = torch.autograd.functional.hessian(cost, torch.cat(list(leaves.values())))
    dense = torch.linalg.inv(hessian).diagonal().sqrt().split(sizes)
    sigma = posterior.standard_deviations(truth)
    for block, expected in zip(columns.blocks, dense, strict=True):
        found = sigma[block.parameter][..., block.coefficients].flatten()
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, err_msg=block.part.name)
    assert np.isnan(sigma["shape"][4:]).all() and np.isnan(sigma["placement"][:6]).all()
    assert sigma["expr"].shape == truth.expr.shape and "static_offset" not in sigma


def _drawn(head, timesteps, seed, sigma=3e-4):
    """Truth drawn from the priors, and landmarks with Gaussian noise of the stated standard deviation (m)."""
    rng = np.random.default_rng(seed)

    def chain(size, prior, step):
        """(T, size): standard deviation `prior` of each timestep (none: a random walk) and `step` of each change."""
        out = rng.normal(size=(timesteps, size)) * (0.02 if prior is None else prior)
        a = 1.0 if prior is None else 1 - step**2 / (2 * prior**2)
        for t in range(1, timesteps):
            noise = step if prior is None else prior * (1 - a**2) ** 0.5
            out[t] = a * out[t - 1] + noise * rng.normal(size=size)
        return out

    still = timesteps == 1
    apart = np.concatenate([np.eye(3), -np.eye(3)], axis=1) / VERGENCE
    eyes = np.linalg.cholesky(np.linalg.inv(np.eye(6) / PRIOR.eyes**2 + apart.T @ apart))
    jaw = rng.normal(size=(timesteps, 3)) * [PRIOR.jaw, PRIOR.jaw / 3, PRIOR.jaw / 10]
    while (jaw[:, 0] < 0.03).any():  # well away from its bound, which the posterior knows nothing of
        jaw[:, 0] = np.where(jaw[:, 0] < 0.03, rng.normal(size=timesteps) * PRIOR.jaw, jaw[:, 0])
    moving = {} if still else {name: chain(3, None, SMOOTH[name]) for name in ("rotation", "translation")}
    placement = np.concatenate([rng.normal(size=6) * 0.01 * still, rng.normal(size=1) * PRIOR.log_scale])
    values = moving | {
        "placement": placement,
        "shape": rng.normal(size=head.n_shape) * PRIOR.shape,
        "expr": chain(head.n_expr, PRIOR.expr, SMOOTH["expr"]),
        "neck_pose": rng.normal(size=(timesteps, 3)) * PRIOR.neck,
        "jaw_pose": jaw,
        "eyes_pose": rng.normal(size=(timesteps, 6)) @ eyes.T,
    }
    neutral = FitParameters.neutral(head, timesteps)
    truth = replace(neutral, **{name: torch.as_tensor(value) for name, value in values.items()})
    embedding, targets = embedding_on(head, POINTS), []
    for vertices in truth.vertices(head):
        marks = make_landmark_target(
            head,
            replace(embedding, spread_mm=np.zeros(POINTS)),
            np.zeros((POINTS, 3)),
            np.zeros(POINTS),
            np.ones(POINTS),
            sigma,
        )
        noise = torch.as_tensor(rng.normal(size=(POINTS, 3))) * marks.sigma[:, None]
        targets.append(FrameTarget((SourceTarget(replace(marks, points=marks.model_points(vertices) + noise)),)))
    return truth, targets


def test_a_prior_is_as_wide_over_time_as_at_one_timestep():
    """Without landmarks every timestep has its prior's standard deviation, however little it changes."""
    head, truth, *_ = sequence(6)
    empty = make_landmark_target(head, embedding_on(head), np.full((80, 3), np.nan), np.ones(80), np.ones(80))
    columns = Columns.of(head, ("expr", "jaw_pose", "neck_pose"))
    settings = second_order_of(iterations=1, smoothness={"expr": 0.05, "jaw_pose": 0.02, "neck_pose": 1.0})
    found = gauss_newton(head, truth, [FrameTarget((SourceTarget(empty),))] * 6, columns, PRIOR, settings)
    sigma = found.posterior.standard_deviations(truth)
    np.testing.assert_allclose(sigma["expr"], PRIOR.expr, rtol=1e-6)
    np.testing.assert_allclose(sigma["jaw_pose"], np.tile([0.1, 0.1 / 3, 0.1 / 10], (6, 1)), rtol=1e-6)
    np.testing.assert_allclose(sigma["neck_pose"], PRIOR.neck, rtol=1e-6)


@pytest.mark.parametrize("timesteps", [1, 3])
def test_errors_are_as_large_as_the_posterior_says(timesteps):
    """Squared errors under a block's covariance are chi-squared; errors over standard deviations have mean 0."""
    head = toy_head().double()
    columns = _columns(head, timesteps)
    smooth = SMOOTH if timesteps > 1 else {}
    settings = second_order_of(iterations=20, landmark_count=POINTS, landmark_cut=1e6, smoothness=smooth)
    squared: dict[tuple[str, int], float] = {}
    scores: dict[tuple[str, int], list[np.ndarray]] = {}
    for seed in range(SEEDS):
        truth, targets = _drawn(head, timesteps, seed)
        found = gauss_newton(head, truth, targets, columns, PRIOR, settings)
        start = columns.n_shared
        apart = [a - b for a, b in zip(columns.values(found.parameters), columns.values(truth), strict=True)]
        for block in columns.blocks:
            own = block in columns.frame
            rows = slice(block.columns.start - own * start, block.columns.stop - own * start)
            for t in range(timesteps if own else 1):
                error = (apart[1][t] if own else apart[0])[rows]
                covariance = (found.posterior.frames[t] if own else found.posterior.shared)[rows, rows]
                key = (block.part.name, t)
                squared[key] = squared.get(key, 0.0) + float(error @ torch.linalg.solve(covariance, error))
                scores.setdefault(key, []).append((error / covariance.diagonal().sqrt()).numpy())
    for key, total in squared.items():
        freedom = SEEDS * len(scores[key][0])
        low, high = chi2.ppf([2e-5, 1 - 2e-5], freedom)
        assert low < total < high, (key, total / freedom)
        # of so many standard normal means none is larger
        assert np.abs(np.mean(scores[key], axis=0)).max() < 4.5 / SEEDS**0.5, key


def test_the_scale_is_not_biased_by_many_timesteps():
    """Errors over standard deviations have mean 0 in the reference frame's unit, and not in the head's own.

    The first identity component is a head's size, as in real models: nothing but it and the priors tells the scale.
    """
    head, steps, scores = toy_head().double(), 20, {True: [], False: []}
    head.shapedirs[..., 0] = 0.05 * head.v_template
    for seed in range(4):
        truth, targets = _drawn(head, steps, seed, sigma=4e-3)
        settings = second_order_of(iterations=20, landmark_count=POINTS, landmark_cut=1e6, smoothness=SMOOTH)
        for metric, found in scores.items():
            columns = replace(_columns(head, steps), metric=metric)
            solution = gauss_newton(head, truth, targets, columns, PRIOR, settings)
            sigma = solution.posterior.standard_deviations(truth)["placement"][6]
            found.append(float(solution.parameters.placement[6] - truth.placement[6]) / sigma)
    # of four standard normal scores the mean is larger than 1.25 once in eighty times
    assert abs(np.mean(scores[True])) < 1.25 < 2.0 < np.mean(scores[False]), scores
