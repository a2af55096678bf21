"""The second-order solver against known truth, at one timestep and several; every parameter is looked at."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, project
from flame_fitting.fit.parameters import JAW_SHUT, PARAMETERS, FitParameters, moving_parts
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.gauss_newton import gauss_newton
from flame_fitting.fit.targets import FrameTarget, SourceTarget, make_landmark_target, make_pixel_target
from flame_fitting.fit.weight_config import PriorConfig
from tests.fit.known_truth import chain_cost, embedding_on, problem, sequence
from tests.fit.settings import priors_of, second_order_of
from tests.toy import toy_head

LOOSE = PriorConfig(shape=10, expr=10, jaw=1, neck=1e-3, eyes=1e-3)
FACE = ("placement", "shape", "expr", "jaw_pose")
JOINTS = ("neck_pose", "jaw_pose", "eyes_pose")
EVERYTHING = ("pose", "scale", "joints", "shape", "expr")


def _error_mm(head, found, truth):
    return 1000 * (found.vertices(head) - truth.vertices(head)).norm(dim=-1)


def _columns(head, timesteps):
    return Columns.of(head, [part.name for part in moving_parts(EVERYTHING, timesteps > 1, JOINTS)])


def _solve(head, targets, columns, prior, surface=None, start=None, **settings):
    start = FitParameters.neutral(head, len(targets)) if start is None else start
    return gauss_newton(head, start, targets, columns, prior, second_order_of(**settings), surface)


def test_landmarks_alone_recover_the_face():
    head, truth, targets, _ = problem()
    start = FitParameters.neutral(head)
    found = _solve(head, targets, Columns.of(head, FACE), LOOSE, iterations=40).parameters
    face = head.region_mask("face")
    assert _error_mm(head, found, truth)[0, face].median() < 0.1
    assert _error_mm(head, start, truth)[0, face].median() > 2


def test_outliers_among_landmarks_do_not_matter():
    head, truth, targets, _ = problem()
    targets[0].sources[0].landmarks.points[:6] += 0.05
    found = _solve(head, targets, Columns.of(head, FACE), LOOSE, iterations=60).parameters
    assert _error_mm(head, found, truth)[0, head.region_mask("face")].median() < 0.3


@pytest.mark.parametrize("timesteps", [1, 3])
def test_geometry_recovers_surface_and_vertices(timesteps):
    head, truth, targets, weights = problem(timesteps)
    joint = [part.name for part in moving_parts(EVERYTHING, timesteps > 1, ("jaw_pose",))]
    columns = Columns.of(head, joint)
    found = _solve(head, targets, columns, LOOSE, iterations=20).parameters
    found = _solve(head, targets, columns, LOOSE, weights, found).parameters
    error = _error_mm(head, found, truth)
    assert error.median() < 0.1 and torch.quantile(error.flatten(), 0.95) < 0.5


@pytest.mark.parametrize("surface", [False, True])
@pytest.mark.parametrize("timesteps", [1, 3])
def test_every_parameter_is_recovered(timesteps, surface):
    """Exact landmarks that outweigh the priors; the placement moves at one timestep only."""
    head, truth, targets, weights = sequence(timesteps)
    start = FitParameters.neutral(head, timesteps)
    args = (head, targets, _columns(head, timesteps), PriorConfig(), weights if surface else None, start)
    found = _solve(*args, iterations=40, landmark_count=1e7, surface_count=1.0, surface_back_count=1.0)
    within = {"shape": 2e-3, "expr": 2e-3, "static_offset": 0.0}
    for parameter in (one for one in PARAMETERS if not one.optional):
        value, true = getattr(found.parameters, parameter.name), getattr(truth, parameter.name)
        assert float((value - true).abs().max()) <= within.get(parameter.name, 2e-4), parameter.name
        assert (true != 0).any() or parameter.name in (
            "rotation",
            "translation",
            "placement",
            "static_offset",
            "log_focal",
        )


@pytest.mark.parametrize("timesteps", [1, 3])
def test_the_solution_is_a_minimum_of_the_cost(timesteps):
    """The cost written anew, its slope by autograd: robust landmarks, priors, smoothness."""
    head, _, targets, _ = sequence(timesteps, noise=1e-3)
    prior, smooth = PriorConfig(), {"expr": 0.1, "rotation": 0.05, "jaw_pose": 0.02}
    columns = _columns(head, timesteps)
    start = None
    for _ in range(3):  # it stops where the cost hardly changes any more; begun anew it comes nearer
        solution = _solve(head, targets, columns, prior, start=start, iterations=60, smoothness=smooth)
        start = solution.parameters
    leaves = {name: value.clone().requires_grad_() for name, value in solution.parameters.items().items()}
    p = FitParameters(**leaves)
    cost = 0.5 * (p.shape.square().sum() / prior.shape**2 + p.placement[6].square() / prior.log_scale**2)
    jaw = torch.tensor([1, 1 / 3, 1 / 10]) * prior.jaw
    sigmas = {"expr": prior.expr, "neck_pose": prior.neck, "jaw_pose": jaw, "eyes_pose": prior.eyes, "rotation": None}
    for name, sigma in sigmas.items():
        cost = cost + chain_cost(leaves[name], sigma, smooth.get(name))
    cost = cost + 0.5 * ((p.eyes_pose[:, :3] - p.eyes_pose[:, 3:]) / 0.05).square().sum()
    for vertices, target in zip(p.vertices(head), targets, strict=True):
        marks = target.sources[0].landmarks
        squared = (marks.model_points(vertices) - marks.points).square().sum(-1) / marks.sigma**2
        cost = cost + 0.5 * 60.0 / len(squared) * (marks.weight * squared / (1 + squared / 16)).sum()
    cost.backward()
    sigma = solution.posterior.standard_deviations(solution.parameters)
    for block in columns.blocks:
        # times the standard deviation: how far, in these, a coefficient alone would still move
        slope = leaves[block.parameter].grad.numpy() * sigma[block.parameter]
        assert np.abs(slope[..., block.coefficients]).max() < 1e-2, block.part.name


def test_gauge_placement_stands_still_over_time_and_motion_at_one_timestep():
    head, _, targets, _ = sequence(3)
    found = _solve(head, targets, _columns(head, 3), PriorConfig()).parameters
    assert (found.placement[:6] == 0).all() and found.placement[6] != 0
    assert (found.rotation != 0).all() and (found.translation != 0).all()
    head, _, targets, _ = sequence(1)
    found = _solve(head, targets, _columns(head, 1), PriorConfig()).parameters
    assert (found.rotation == 0).all() and (found.translation == 0).all() and (found.placement != 0).all()
    held = [part.name for part in moving_parts(("pose", "joints", "shape", "expr"), False, JOINTS)]
    assert _solve(head, targets, Columns.of(head, held), PriorConfig()).parameters.placement[6] == 0


def test_a_timestep_without_landmarks_is_carried_by_its_neighbours():
    head, truth, targets, _ = sequence(5)
    nothing = np.full((80, 3), np.nan)
    empty = make_landmark_target(head, embedding_on(head), nothing, np.full(80, 2e-4), np.ones(80))
    assert len(empty.points) == 0
    targets[2], targets[4] = FrameTarget((SourceTarget(empty),)), FrameTarget((SourceTarget(empty),))
    smooth = {"rotation": 0.02, "translation": 0.005, "expr": 0.1}
    found = _solve(head, targets, _columns(head, 5), PriorConfig(), iterations=40, smoothness=smooth)
    p = found.parameters
    for name in ("rotation", "translation"):
        value = getattr(p, name)
        # without other information, halfway between the neighbours, and at the end where the neighbour is
        torch.testing.assert_close(value[2], (value[1] + value[3]) / 2, rtol=0, atol=1e-6)
        torch.testing.assert_close(value[4], value[3], rtol=0, atol=1e-6)
    assert (p.jaw_pose[2] == 0).all(), "nothing but its prior"
    assert (truth.jaw_pose[2] != 0).any()
    sigma = found.posterior.standard_deviations(p)
    for name in ("rotation", "translation", "expr"):
        assert (sigma[name][2] > sigma[name][1]).all() and (sigma[name][4] > sigma[name][2]).all(), name
    np.testing.assert_allclose(sigma["jaw_pose"][2], [0.1, 0.1 / 3, 0.1 / 10], rtol=1e-6)


def test_what_nothing_determines_stays_and_is_known_infinitely_badly():
    head, _, targets, _ = sequence(2)
    empty = make_landmark_target(head, embedding_on(head), np.full((80, 3), np.nan), np.full(80, 2e-4), np.ones(80))
    targets[1] = FrameTarget((SourceTarget(empty),))
    found = _solve(head, targets, _columns(head, 2), PriorConfig())
    assert (found.parameters.rotation[1] == 0).all() and (found.parameters.rotation[0] != 0).all()
    sigma = found.posterior.standard_deviations(found.parameters)
    assert np.isinf(sigma["rotation"][1]).all() and np.isfinite(sigma["rotation"][0]).all()


def test_landmarks_without_a_point_are_fitted_in_the_pictures():
    head, truth, targets, _ = problem()
    embedding = embedding_on(head)
    points = targets[0].sources[0].landmarks.model_points(truth.vertices(head)[0]).numpy()
    K = intrinsics_from_fov(25.0, 512, 512)
    camera = look_at([[0.2, 0.1, 1.0], [-0.3, 0.0, 1.0]], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    pixels = np.stack([project(points, K, c) for c in camera])
    pixels[..., 2] = 0.9
    missing = np.ones(len(points), dtype=bool)
    missing[:20] = False  # these have a point in space
    marks = make_landmark_target(
        head, embedding, np.where(missing[:, None], np.nan, points), np.full(80, 2e-4), np.ones(80)
    )
    only_points = [FrameTarget((SourceTarget(marks),))]
    views = make_pixel_target(head, embedding, missing, pixels, np.stack([K, K]), camera, np.ones(80))
    assert views is not None and len(views.rays) == 2 * 60
    errors = []
    for target in (only_points, [FrameTarget((SourceTarget(marks, views),))]):
        found = _solve(head, target, Columns.of(head, FACE), PriorConfig(), iterations=40).parameters
        errors.append(float(_error_mm(head, found, truth)[0, head.region_mask("face")].median()))
    assert errors[1] < 0.6 * errors[0]


def test_jaw_does_not_close_further_than_shut():
    head, truth, targets, _ = problem()
    closed = replace(truth, jaw_pose=torch.tensor([[-0.3, 0.0, 0.0]], dtype=torch.float64))
    points = targets[0].sources[0].landmarks.model_points(closed.vertices(head)[0])
    targets[0].sources[0].landmarks.points = points
    found = _solve(head, targets, Columns.of(head, ["jaw_pose"]), LOOSE, start=truth.clone(), iterations=10).parameters
    assert found.jaw_pose[0, 0] == pytest.approx(JAW_SHUT, abs=1e-9)
    assert np.isfinite(found.placement.numpy()).all()


def test_steps_from_far_away_are_refused_and_the_cost_never_rises(monkeypatch: pytest.MonkeyPatch):
    """A head turned by 2 rad: a full step overshoots; plain Gauss-Newton would have taken it."""
    from flame_fitting.fit.solvers import gauss_newton as module

    head, truth, targets, _ = sequence(1)
    start = replace(truth, placement=truth.placement + torch.tensor([0, 2.0, 0, 0, 0, 0, 0], dtype=torch.float64))
    costs = []

    def watched(system, gradient, cost, at, cost_at, damping, bounds):
        there = step(system, gradient, cost, at, cost_at, damping, bounds)
        costs.append((cost, cost_at(there)))
        return there

    step = module.step
    monkeypatch.setattr(module, "step", watched)
    prior, columns = PriorConfig(), _columns(head, 1)
    found = _solve(head, targets, columns, prior, start=start, iterations=60, landmark_cut=1e3)
    assert found.refused > 0
    assert all(after <= before for before, after in costs)
    # landmarks stand still: what one iteration leaves is what the next begins with
    np.testing.assert_allclose([after for _, after in costs[:-1]], [before for before, _ in costs[1:]], rtol=1e-9)
    near = _solve(head, targets, columns, prior, start=truth, iterations=60, landmark_cut=1e3)
    for name, value in found.parameters.items().items():
        torch.testing.assert_close(value, getattr(near.parameters, name), atol=1e-3, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_without_a_surface_it_is_solved_on_the_cpu_and_given_back_on_the_device() -> None:
    head, _, targets, _ = sequence(3)
    columns = Columns.of(head, ("shape", "rotation", "translation"), {"shape": 3}, metric=True)
    settings, gpu = second_order_of(iterations=3, bias_sigma=0.002, marginal=2), torch.device("cuda")
    start = FitParameters.neutral(head, 3)
    here = gauss_newton(head, start, targets, columns, priors_of(), settings)
    moved = (copy.deepcopy(head).to(gpu), start.to(gpu), [target.to(gpu) for target in targets])
    there = gauss_newton(*moved, columns, priors_of(), settings)
    for name, value in there.parameters.items().items():
        assert value.device.type == "cuda"
        assert torch.equal(value.cpu(), here.parameters.items()[name])
    known = there.posterior.standard_deviations(there.parameters)
    assert np.array_equal(known["shape"], here.posterior.standard_deviations(start)["shape"], equal_nan=True)
    assert there.cost == here.cost and there.bias.device.type == "cuda"


def test_a_head_without_expressions_is_fitted():
    """FLAME's identity alone, as reduced files have it."""
    head, truth, targets, weights = problem(head=toy_head(n_expr=0).double())
    for surface in (None, weights):
        found = _solve(head, targets, Columns.of(head, FACE), LOOSE, surface, iterations=20).parameters
        assert _error_mm(head, found, truth)[0, head.region_mask("face")].median() < 0.2
