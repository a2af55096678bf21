"""Second-order stages against known truth."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, project
from flame_fitting.fit.linearize import Columns, linearize
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.parametric import (
    GaussNewtonWeights,
    PriorWeights,
    fit_geometry,
    fit_landmarks,
    landmark_term,
    pixel_term,
    prior_term,
    surface_term,
)
from flame_fitting.fit.targets import FrameTarget, make_landmark_target, make_pixel_target
from tests.fit.known_truth import embedding_on, problem

LOOSE = PriorWeights(shape=10, expr=10, jaw=1, neck=1e-3, eyes=1e-3)


def _error_mm(head, found, truth):
    return 1000 * (found.vertices(head) - truth.vertices(head)).norm(dim=-1)


def test_landmarks_alone_recover_the_face():
    head, truth, targets, _ = problem()
    columns = Columns(True, head.n_shape, head.n_expr, ("jaw_pose",))
    start = FitParameters.neutral(head)
    found = fit_landmarks(head, start, targets, columns, LOOSE, GaussNewtonWeights(), iterations=40)
    face = head.region_mask("face")
    assert _error_mm(head, found, truth)[0, face].median() < 0.1
    assert _error_mm(head, start, truth)[0, face].median() > 2


def test_outliers_among_landmarks_do_not_matter():
    head, truth, targets, _ = problem()
    targets[0].landmarks.points[:6] += 0.05
    columns = Columns(True, head.n_shape, head.n_expr, ("jaw_pose",))
    found = fit_landmarks(
        head, FitParameters.neutral(head), targets, columns, LOOSE, GaussNewtonWeights(), iterations=60
    )
    assert _error_mm(head, found, truth)[0, head.region_mask("face")].median() < 0.3


@pytest.mark.parametrize("timesteps", [1, 3])
def test_geometry_recovers_surface_and_vertices(timesteps):
    head, truth, targets, weights = problem(timesteps)
    poses = ("jaw_pose",) if timesteps == 1 else ("rotation", "translation", "jaw_pose")
    columns = Columns(True, head.n_shape, head.n_expr, poses)
    balance = GaussNewtonWeights()
    found = fit_landmarks(head, FitParameters.neutral(head, timesteps), targets, columns, LOOSE, balance)
    found = fit_geometry(head, found, targets, columns, LOOSE, balance, weights, iterations=25)
    error = _error_mm(head, found, truth)
    assert error.median() < 0.1 and torch.quantile(error.flatten(), 0.95) < 0.5


def test_terms_are_linearisations_of_their_costs():
    head, truth, targets, weights = problem()
    columns = Columns(True, head.n_shape, head.n_expr, ("jaw_pose", "eyes_pose", "neck_pose"))
    at = replace(truth.clone(), shape=truth.shape + 0.02)

    def total(parameters):
        vertices, jacobian = linearize(head, parameters, columns)
        from flame_fitting.render.shading import vertex_normals

        normals = vertex_normals(vertices[None], head.faces)[0]
        # kernels so wide that the robust weights are constant, and the plain quadratic cost remains
        surface = surface_term(vertices, jacobian, normals, targets[0].surface, weights, 100.0, 0.001, 1e3)
        marks = landmark_term(vertices, jacobian, targets[0].landmarks, 50.0, 1e3)
        return marks, surface, prior_term(parameters, columns, 0, PriorWeights())

    marks, _, prior = total(at)
    for term, pick in ((marks, 0), (prior, 2)):
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
            head, FitParameters.neutral(head), target, columns, PriorWeights(), GaussNewtonWeights(), iterations=40
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
    found = fit_landmarks(head, truth.clone(), targets, columns, LOOSE, GaussNewtonWeights(), iterations=10)
    assert found.jaw_pose[0, 0] >= -0.02 - 1e-9
    assert np.isfinite(found.placement.numpy()).all()
