"""What the second-order solver measures: values by hand, slopes by finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.capture.camera import intrinsics_from_fov, look_at, project
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.jacobians import Linearizer
from flame_fitting.fit.solvers.residuals import (
    landmarks_in_pictures,
    landmarks_in_space,
    surface_distances,
    surface_distances_back,
)
from flame_fitting.fit.solvers.skin import Points, different
from flame_fitting.fit.surface import SurfaceCloud
from flame_fitting.fit.targets import make_pixel_target
from flame_fitting.render.shading import vertex_normals
from tests.fit.known_truth import embedding_on, problem


def _slopes_agree(term_at, parameters, columns):
    """Gradient of a term at parameters against differences of its cost."""
    gradient = term_at(parameters).gradient
    assert gradient.abs().max() > 0
    for block in columns.blocks:
        for k in range(block.columns.start, block.columns.stop):
            costs = []
            for sign in (1, -1):
                moved = getattr(parameters, block.parameter).clone()
                moved.view(-1)[block.coefficients.start + k - block.columns.start] += sign * 1e-6
                costs.append(term_at(replace(parameters, **{block.parameter: moved})).cost)
            numeric = (costs[0] - costs[1]) / 2e-6
            torch.testing.assert_close(gradient[k], numeric, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


@pytest.mark.parametrize("cut", [1e3, 2.0])
def test_slope_of_landmarks_is_that_of_their_robust_cost(cut):
    head, truth, targets, _ = problem()
    columns = Columns.of(head, ("placement", "shape", "expr", "jaw_pose", "eyes_pose", "neck_pose"))
    linearizer = Linearizer(head, columns)
    measured = landmarks_in_space(targets[0].sources[0].landmarks, 50.0, cut)
    at = replace(truth.clone(), shape=truth.shape + 0.5)
    _slopes_agree(lambda p: measured.quadratic(*linearizer(p)), at, columns)
    groups, (number,) = different([(measured.corners, measured.shares)])
    some = measured.of_points(number).quadratic(*Linearizer(head, columns, Points(head, groups))(at))
    for alone, whole in zip(some, measured.quadratic(*linearizer(at)), strict=True):
        torch.testing.assert_close(alone, whole)


@pytest.mark.parametrize("cut", [1e3, 2.0])
def test_landmarks_in_pictures_are_right_at_the_truth_and_their_slope_is_that_of_their_cost(cut):
    head, truth, targets, _ = problem()
    embedding = embedding_on(head)
    K, camera = intrinsics_from_fov(25.0, 512, 512), look_at([[0.2, 0.1, 1.0]], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    points = targets[0].sources[0].landmarks.model_points(truth.vertices(head)[0]).numpy()
    pixels = np.stack([project(points, K, camera[0])])
    pixels[..., 2] = 1.0
    views = make_pixel_target(head, embedding, np.ones(80, dtype=bool), pixels, K[None], camera, np.ones(80))
    columns = Columns.of(head, ("placement", "shape"))
    linearizer = Linearizer(head, columns)
    measured = landmarks_in_pictures(views, 1.0, cut)
    assert measured.cost(linearizer.vertices(truth)) < 1e-9
    at = replace(truth, shape=truth.shape + 0.5)
    _slopes_agree(lambda p: measured.quadratic(*linearizer(p)), at, columns)


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
    """By hand: half the sum of w rho(r) over matched vertices, times count / (sigma^2 sum of w)."""
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
    measured = surface_distances(vertices, normals, cloud, weights, count, sigma, cut)
    term = measured.quadratic(vertices, _free_vertices(5))
    residuals, scales, share = np.array([3e-3, 2.4e-3, -2e-3]), np.array([cut, cut, cut / 2]), np.array([1.0, 2, 3])
    robust = share / (1 + (residuals / scales) ** 2) ** 2 * count / (sigma**2 * 10.0)
    rho = residuals**2 / (1 + (residuals / scales) ** 2)
    expected_cost = 0.5 * float((share * rho).sum() * count / (sigma**2 * 10.0))
    assert float(term.cost) == float(measured.cost(vertices)) == pytest.approx(expected_cost, rel=1e-9)
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
    # point 2's only near triangle has no weight; point 3 faces the other way
    measured = surface_distances_back(vertices, normals, faces, cloud, np.arange(4), weights, count, sigma, cut)
    term = measured.quadratic(vertices, _free_vertices(12))
    residuals, scales = np.array([3e-3, 0.8 * -5e-3]), np.array([cut, 0.5 * cut])
    robust = np.array([1.0, 2.0]) / (1 + (residuals / scales) ** 2) ** 2 * count / (sigma**2 * 2)
    rho = residuals**2 / (1 + (residuals / scales) ** 2)
    shares = np.array([1.0, 2.0]) * count / (sigma**2 * 2)
    assert float(term.cost) == pytest.approx(0.5 * float((shares * rho).sum()), rel=1e-9)
    expected = np.zeros((4, 3, 3))
    expected[0] = robust[0] * residuals[0] * np.array([0, 0, 1.0]) / 3  # the centre is a third of each corner
    expected[1] = robust[1] * residuals[1] * np.array([0.6, 0, 0.8]) / 3
    np.testing.assert_allclose(term.gradient.reshape(4, 3, 3), expected, atol=1e-12)
    # only what was sampled counts
    alone = surface_distances_back(vertices, normals, faces, cloud, np.array([0]), weights, count, sigma, cut)
    assert float(alone.cost(vertices)) == pytest.approx(float(shares[0] * rho[0]), rel=1e-9)
    assert (alone.quadratic(vertices, _free_vertices(12)).gradient[9:] == 0).all()


@pytest.mark.parametrize("back", [False, True])
def test_surface_terms_agree_with_finite_differences(back: bool):
    """On a posed head; the robust scale is so wide that the weights are constant."""
    head, truth, targets, weights = problem()
    columns = Columns.of(head, ("placement", "shape", "expr", "jaw_pose"))
    linearizer = Linearizer(head, columns)
    at = replace(truth.clone(), shape=truth.shape + 0.02)
    cloud = targets[0].surface
    if not back:  # few points: small steps change no correspondence
        cloud = SurfaceCloud(cloud.points[::400], cloud.normals[::400], cloud.colors[::400])
    sample = np.arange(0, len(cloud.points), 97)

    def term(parameters):
        vertices, jacobian = linearizer(parameters)
        normals = vertex_normals(vertices[None], head.faces)[0]
        settings = (100.0, 0.001, 1e3)
        if back:
            found = surface_distances_back(vertices, normals, head.faces, cloud, sample, weights, *settings)
        else:
            found = surface_distances(vertices, normals, cloud, weights, *settings)
        return found.quadratic(vertices, jacobian)

    now = term(at)
    assert now.cost > 0 and now.gradient.abs().max() > 0
    for block in columns.blocks:
        if block.parameter == "jaw_pose":
            continue
        for k in range(block.columns.start, block.columns.stop):
            costs = []
            for sign in (1, -1):
                moved = getattr(at, block.parameter).clone()
                moved.view(-1)[block.coefficients.start + k - block.columns.start] += sign * 1e-8
                costs.append(term(replace(at, **{block.parameter: moved})).cost)
            numeric = float(costs[0] - costs[1]) / 2e-8
            assert float(now.gradient[k]) == pytest.approx(numeric, rel=1e-3, abs=1e-3), (block.part.name, k)
