"""Static offsets against a known displacement, and their guards."""

import numpy as np
import torch

from flame_fitting.fit.solvers.registration import (
    fit_offsets,
    folded_triangles,
    graph_laplacian,
    uniform_laplacian,
)
from flame_fitting.fit.surface import SurfaceCloud
from flame_fitting.head.mesh_graph import MeshGraph
from tests.fit.known_truth import problem
from tests.fit.settings import ITERATIONS


def _bumps(head):
    x = head.v_template
    along = torch.nn.functional.normalize(x, dim=-1)
    return along * (0.002 * torch.sin(60 * x[:, :1]) * torch.cos(50 * x[:, 1:2]))


def test_offsets_reach_a_surface_outside_the_basis():
    head, truth, targets, weights = problem(offset=_bumps)
    start = truth.clone()
    start.static_offset.zero_()
    found = fit_offsets(head, start, targets, weights, ITERATIONS)
    vertices = found.vertices(head)[0].numpy()
    surface = targets[0].surface
    _, index = surface.tree.query(vertices)
    plane = np.abs(np.einsum("nc,nc->n", surface.normals[index], vertices - surface.points[index]))
    assert np.median(plane) < 5e-5 and np.quantile(plane, 0.95) < 3e-4
    error = 1000 * (found.vertices(head) - truth.vertices(head)).norm(dim=-1)
    assert error.median() < 0.35  # tangential motion is not observed, but kept small
    assert not folded_triangles(head, found).any()


def test_no_surface_pull_leaves_no_offsets():
    head, truth, targets, weights = problem()
    found = fit_offsets(head, truth, targets, weights, 4)
    assert found.static_offset.norm(dim=-1).max() < 2e-4


def test_folded_triangles_are_counted():
    head, truth, _, _ = problem()
    assert not folded_triangles(head, truth).any()
    folded = truth.clone()
    vertex = int(head.faces[5, 0])
    ring = head.faces[(head.faces == vertex).any(1)].unique()
    centre = head.v_template[ring].mean(0)
    folded.static_offset[0, vertex] = 3 * (centre - head.v_template[vertex]) + torch.tensor([0.03, 0.03, 0.0])
    assert folded_triangles(head, folded).any()


def test_laplacians():
    head, _, _, _ = problem()
    edges = MeshGraph(head.faces.numpy(), head.n_vertices).edges
    assert len(edges) == head.n_vertices + len(head.faces) - 2  # Euler, closed surface
    values = np.random.default_rng(0).normal(size=head.n_vertices)
    weight = np.random.default_rng(1).uniform(size=len(edges))
    expected = (weight * (values[edges[:, 0]] - values[edges[:, 1]]) ** 2).sum()
    np.testing.assert_allclose(values @ (graph_laplacian(edges, weight, head.n_vertices) @ values), expected)
    np.testing.assert_allclose(uniform_laplacian(edges, head.n_vertices) @ np.ones(head.n_vertices), 0, atol=1e-12)


def test_open_edges_of_a_surface_are_found_and_reached():
    cloud = problem()[2][0].surface
    assert len(cloud.edges_near(cloud.points[::500])) < 0.01 * len(cloud.points)  # closed: none but chance
    height = cloud.points[:, 1]
    cut = SurfaceCloud(cloud.points[height > -0.06], cloud.normals[height > -0.06], cloud.colors[height > -0.06])
    edges = cut.edges_near(cut.points[np.abs(cut.points[:, 1] + 0.06) < 0.004])
    # samples are random, so a few inner points lean as well
    assert len(edges) > 100 and np.quantile(np.abs(edges[:, 1] + 0.06), 0.9) < 0.0025
