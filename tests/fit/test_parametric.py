"""Second-order stages against known truth."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, project
from flame_fitting.fit.linearize import Columns, linearize
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.parametric import (
    fit_geometry,
    fit_landmarks,
    landmark_term,
    pixel_term,
    prior_term,
    surface_back_term,
    surface_term,
)
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.surface import SurfaceCloud
from flame_fitting.fit.targets import FrameTarget, make_landmark_target, make_pixel_target
from flame_fitting.render.shading import vertex_normals
from tests.fit.known_truth import embedding_on, problem
from tests.fit.settings import balance_of, priors_of

LOOSE = priors_of(shape=10, expr=10, jaw=1, neck=1e-3, eyes=1e-3)


def _error_mm(head, found, truth):
    return 1000 * (found.vertices(head) - truth.vertices(head)).norm(dim=-1)


def test_landmarks_alone_recover_the_face():
    head, truth, targets, _ = problem()
    columns = Columns(True, head.n_shape, head.n_expr, ("jaw_pose",))
    start = FitParameters.neutral(head)
    found = fit_landmarks(head, start, targets, columns, LOOSE, balance_of(), iterations=40)
    face = head.region_mask("face")
    assert _error_mm(head, found, truth)[0, face].median() < 0.1
    assert _error_mm(head, start, truth)[0, face].median() > 2


def test_outliers_among_landmarks_do_not_matter():
    head, truth, targets, _ = problem()
    targets[0].landmarks.points[:6] += 0.05
    columns = Columns(True, head.n_shape, head.n_expr, ("jaw_pose",))
    found = fit_landmarks(head, FitParameters.neutral(head), targets, columns, LOOSE, balance_of(), iterations=60)
    assert _error_mm(head, found, truth)[0, head.region_mask("face")].median() < 0.3


@pytest.mark.parametrize("timesteps", [1, 3])
def test_geometry_recovers_surface_and_vertices(timesteps):
    head, truth, targets, weights = problem(timesteps)
    poses = ("jaw_pose",) if timesteps == 1 else ("rotation", "translation", "jaw_pose")
    columns = Columns(True, head.n_shape, head.n_expr, poses)
    balance = balance_of()
    start = FitParameters.neutral(head, timesteps)
    found = fit_landmarks(head, start, targets, columns, LOOSE, balance, iterations=20)
    found = fit_geometry(head, found, targets, columns, LOOSE, balance, weights, iterations=25)
    error = _error_mm(head, found, truth)
    assert error.median() < 0.1 and torch.quantile(error.flatten(), 0.95) < 0.5


def test_terms_are_linearisations_of_their_costs():
    head, truth, targets, _ = problem()
    columns = Columns(True, head.n_shape, head.n_expr, ("jaw_pose", "eyes_pose", "neck_pose"))
    at = replace(truth.clone(), shape=truth.shape + 0.02)

    def total(parameters):
        vertices, jacobian = linearize(head, parameters, columns)
        # a kernel so wide that the robust weights are constant, and the plain quadratic cost remains
        marks = landmark_term(vertices, jacobian, targets[0].landmarks, 50.0, 1e3)
        return marks, prior_term(parameters, columns, 0, priors_of())

    marks, prior = total(at)
    for pick, term in enumerate((marks, prior)):
        for name in ("shape", "jaw_pose"):
            span = columns.slices()[name]
            value = getattr(at, name)
            for k in range(span.stop - span.start):
                costs = []
                for sign in (1, -1):
                    moved = value.clone()
                    moved.view(-1)[k] += sign * 1e-5
                    costs.append(total(replace(at, **{name: moved}))[pick].cost)
                numeric = (costs[0] - costs[1]) / 2e-5
                torch.testing.assert_close(term.gradient[span.start + k], numeric, rtol=1e-3, atol=1e-5)


def test_landmarks_without_a_point_are_fitted_in_the_pictures():
    head, truth, targets, _ = problem()
    embedding = embedding_on(head)
    points = targets[0].landmarks.model_points(truth.vertices(head)[0]).numpy()
    K = intrinsics_from_fov(25.0, 512, 512)
    camera = look_at([[0.2, 0.1, 1.0], [-0.3, 0.0, 1.0]], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    pixels = np.stack([project(points, K, c) for c in camera])
    pixels[..., 2] = 0.9
    missing = np.ones(len(points), dtype=bool)
    missing[:20] = False  # these have a point in space
    marks = make_landmark_target(
        head, embedding, np.where(missing[:, None], np.nan, points), np.full(80, 2e-4), np.ones(80)
    )
    only_points = [FrameTarget(marks, None)]
    views = make_pixel_target(head, embedding, missing, pixels, np.stack([K, K]), camera, np.ones(80))
    assert views is not None and len(views.rays) == 2 * 60
    columns = Columns(True, head.n_shape, head.n_expr, ("jaw_pose",))
    errors = []
    for target in (only_points, [FrameTarget(marks, None, views)]):
        found = fit_landmarks(
            head, FitParameters.neutral(head), target, columns, priors_of(), balance_of(), iterations=40
        )
        errors.append(float(_error_mm(head, found, truth)[0, head.region_mask("face")].median()))
    assert errors[1] < 0.6 * errors[0]


def test_pixel_term_is_zero_at_the_truth_and_linearised_right():
    head, truth, targets, _ = problem()
    embedding = embedding_on(head)
    K, camera = intrinsics_from_fov(25.0, 512, 512), look_at([[0.2, 0.1, 1.0]], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    points = targets[0].landmarks.model_points(truth.vertices(head)[0]).numpy()
    pixels = np.stack([project(points, K, camera[0])])
    pixels[..., 2] = 1.0
    views = make_pixel_target(head, embedding, np.ones(80, dtype=bool), pixels, K[None], camera, np.ones(80))
    columns = Columns(True, head.n_shape, 0, ())
    assert pixel_term(*linearize(head, truth, columns), views, 1.0, 1e3).cost < 1e-9
    at = replace(truth, shape=truth.shape + 0.05)
    term = pixel_term(*linearize(head, at, columns), views, 1.0, 1e3)
    for k in range(head.n_shape):
        costs = []
        for sign in (1, -1):
            moved = at.shape.clone()
            moved[k] += sign * 1e-5
            costs.append(pixel_term(*linearize(head, replace(at, shape=moved), columns), views, 1.0, 1e3).cost)
        torch.testing.assert_close(
            term.gradient[columns.slices()["shape"].start + k], (costs[0] - costs[1]) / 2e-5, rtol=1e-3, atol=1e-5
        )


def test_jaw_does_not_close_further_than_shut():
    head, truth, targets, _ = problem()
    closed = replace(truth, jaw_pose=torch.tensor([[-0.3, 0.0, 0.0]], dtype=torch.float64))
    points = targets[0].landmarks.model_points(closed.vertices(head)[0])
    targets[0].landmarks.points = points
    columns = Columns(True, 0, 0, ("jaw_pose",))
    found = fit_landmarks(head, truth.clone(), targets, columns, LOOSE, balance_of(), iterations=10)
    assert found.jaw_pose[0, 0] >= -0.02 - 1e-9
    assert np.isfinite(found.placement.numpy()).all()


def _tilted_cloud() -> SurfaceCloud:
    """Points far from one another, with normals about +z."""
    points = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.002], [0.2, 0.0, 0.0], [0.3, 0.0, 0.0]])
    normals = np.array([[0.0, 0.0, 1.0], [0.6, 0.0, 0.8], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    return SurfaceCloud(points, normals, np.zeros((4, 3)))


def _weights(vertex: list[float], face: list[float], outside: list[float]) -> SurfaceWeights:
    return SurfaceWeights(*(torch.tensor(values, dtype=torch.float64) for values in (vertex, face, outside)))


def _free_vertices(count: int) -> torch.Tensor:
    """(V, 3, 3 V): every coordinate is a parameter of its own."""
    return torch.eye(3 * count, dtype=torch.float64).reshape(count, 3, 3 * count)


def test_value_of_the_surface_term():
    """By hand: half the sum of w rho'(r) r^2 over matched vertices, times count / (sigma^2 sum of w)."""
    cloud, count, sigma, cut = _tilted_cloud(), 10.0, 0.002, 0.004
    vertices = torch.tensor(
        [
            [0.001, 0.0, 0.003],  # 3 mm inside the avatar's surface by the sign of the term, along +z
            [0.1, 0.0, 0.005],  # 0.8 * 3 mm along a tilted plane
            [0.2, 0.0, -0.002],  # the avatar lies outside: half the robust scale
            [0.3, 0.0, 0.001],  # the nearest point faces the other way
            [0.0, 0.0, 0.001],  # no weight
        ],
        dtype=torch.float64,
    )
    normals = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).repeat(5, 1)
    weights = _weights([1.0, 2.0, 3.0, 4.0, 0.0], [], [0.5] * 5)
    jacobian = _free_vertices(5)
    term = surface_term(vertices, jacobian, normals, cloud, weights, count, sigma, cut)
    residuals, scales, share = np.array([3e-3, 2.4e-3, -2e-3]), np.array([cut, cut, cut / 2]), np.array([1.0, 2, 3])
    robust = share / (1 + (residuals / scales) ** 2) ** 2 * count / (sigma**2 * 10.0)
    assert float(term.cost) == pytest.approx(0.5 * float((robust * residuals**2).sum()), rel=1e-9)
    expected = np.zeros((5, 3))
    expected[0], expected[2] = [0, 0, robust[0] * residuals[0]], [0, 0, robust[2] * residuals[2]]
    expected[1] = robust[1] * residuals[1] * np.array([0.6, 0.0, 0.8])
    np.testing.assert_allclose(term.gradient.reshape(5, 3), expected, atol=1e-12)
    hessian = np.zeros((15, 15))
    for row, plane in enumerate(([0, 0, 1.0], [0.6, 0, 0.8], [0, 0, 1.0])):
        block = slice(3 * row, 3 * row + 3)
        hessian[block, block] = robust[row] * np.outer(plane, plane)
    np.testing.assert_allclose(term.hessian, hessian, atol=1e-9)


def test_value_of_the_back_surface_term():
    """By hand: each sampled point of the avatar against the nearest triangle's centre, in the avatar's own plane."""
    cloud, count, sigma, cut = _tilted_cloud(), 10.0, 0.002, 0.004
    corner = np.array([[-0.003, -0.003, 0.0], [0.006, -0.003, 0.0], [-0.003, 0.006, 0.0]])  # centre at 0
    centres = np.array([[0.0, 0.0, 0.003], [0.1, 0.0, -0.003], [0.2, 0.0, 0.001], [0.3, 0.0, 0.001]])
    vertices = torch.tensor((centres[:, None] + corner).reshape(-1, 3))
    faces = torch.arange(12).reshape(4, 3)
    normals = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).repeat(12, 1)
    outside = [1.0] * 3 + [0.25, 0.5, 0.75] + [1.0] * 6
    weights = _weights([1.0] * 12, [1.0, 2.0, 0.0, 5.0], outside)
    jacobian = _free_vertices(12)
    # point 2's only near triangle has no weight; point 3 faces the other way
    term = surface_back_term(vertices, jacobian, normals, faces, cloud, np.arange(4), weights, count, sigma, cut)
    residuals, scales = np.array([3e-3, 0.8 * -5e-3]), np.array([cut, 0.5 * cut])
    robust = np.array([1.0, 2.0]) / (1 + (residuals / scales) ** 2) ** 2 * count / (sigma**2 * 2)
    assert float(term.cost) == pytest.approx(0.5 * float((robust * residuals**2).sum()), rel=1e-9)
    expected = np.zeros((4, 3, 3))
    expected[0] = robust[0] * residuals[0] * np.array([0, 0, 1.0]) / 3  # the centre is a third of each corner
    expected[1] = robust[1] * residuals[1] * np.array([0.6, 0, 0.8]) / 3
    np.testing.assert_allclose(term.gradient.reshape(4, 3, 3), expected, atol=1e-12)
    # only what was sampled counts
    alone = surface_back_term(vertices, jacobian, normals, faces, cloud, np.array([0]), weights, count, sigma, cut)
    assert float(alone.cost) == pytest.approx(float(robust[0] * residuals[0] ** 2), rel=1e-9)
    assert (alone.gradient[9:] == 0).all()


@pytest.mark.parametrize("back", [False, True])
def test_surface_terms_agree_with_finite_differences(back: bool):
    """On a posed head; the robust scale is so wide that the weights are constant."""
    head, truth, targets, weights = problem()
    columns = Columns(True, head.n_shape, head.n_expr, ("jaw_pose",))
    at = replace(truth.clone(), shape=truth.shape + 0.02)
    cloud = targets[0].surface
    if not back:  # few points: small steps change no correspondence
        cloud = SurfaceCloud(cloud.points[::400], cloud.normals[::400], cloud.colors[::400])
    sample = np.arange(0, len(cloud.points), 97)

    def term(parameters):
        vertices, jacobian = linearize(head, parameters, columns)
        normals = vertex_normals(vertices[None], head.faces)[0]
        if back:
            return surface_back_term(vertices, jacobian, normals, head.faces, cloud, sample, weights, 100.0, 0.001, 1e3)
        return surface_term(vertices, jacobian, normals, cloud, weights, 100.0, 0.001, 1e3)

    now = term(at)
    assert now.cost > 0 and now.gradient.abs().max() > 0
    for name in ("shape", "expr", "placement"):
        span = columns.slices()[name]
        for k in range(span.stop - span.start):
            costs = []
            for sign in (1, -1):
                moved = getattr(at, name).clone()
                moved.view(-1)[k] += sign * 1e-8
                costs.append(term(replace(at, **{name: moved})).cost)
            numeric = float(costs[0] - costs[1]) / 2e-8
            assert float(now.gradient[span.start + k]) == pytest.approx(numeric, rel=1e-3, abs=1e-3), (name, k)
