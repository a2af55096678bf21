"""The linear system of the static offsets: its matrix, and both solvers."""

import numpy as np
import pytest
import scipy.sparse as sparse
import torch

from flame_fitting.fit.solvers.offset_system import OffsetSystem
from flame_fitting.fit.solvers.registration import graph_laplacian
from flame_fitting.head.mesh_graph import MeshGraph
from tests.toy import toy_head


@pytest.fixture
def system() -> OffsetSystem:
    """Planes on two thirds of the toy's vertices, some points in triangles, a membrane."""
    head = toy_head().double()
    count = head.n_vertices
    edges = MeshGraph(head.faces.numpy(), head.n_vertices).edges
    regular = 0.1 * graph_laplacian(edges, np.ones(len(edges)), count) + 1e-4 * sparse.identity(count)
    system = OffsetSystem.empty(head.v_template, sparse.csr_matrix(regular))
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    chosen = torch.arange(count)[torch.arange(count) % 3 > 0]
    directions = torch.nn.functional.normalize(random(len(chosen), 3), dim=-1)
    system.add_rows(chosen, directions, 0.001 * random(len(chosen)), random(len(chosen)).square())
    corners = head.faces[::7]
    matrices = torch.eye(3, dtype=torch.float64) * torch.tensor([0.5, 0.3, 0.2]).double()[:, None, None]
    matrices = matrices + 0.1 * random(len(corners), 3, 3, 3)
    system.add_points(corners, matrices, 0.002 * random(len(corners), 3), random(len(corners)).square())
    return system


def test_matrix_and_right_side_are_those_of_the_least_squares_problem() -> None:
    like = torch.zeros(4, 3, dtype=torch.float64)
    system = OffsetSystem.empty(like, sparse.csr_matrix(0.5 * sparse.identity(4)))
    direction, corners = torch.tensor([[0.0, 0.6, 0.8]]).double(), torch.tensor([[0, 2, 3]])
    matrices = torch.arange(27.0).double().reshape(1, 3, 3, 3) / 10
    system.add_rows(torch.tensor([1]), direction, torch.tensor([0.3]).double(), torch.tensor([2.0]).double())
    system.add_points(corners, matrices, torch.tensor([[0.1, -0.2, 0.3]]).double(), torch.tensor([3.0]).double())
    rows = np.zeros((4, 12))
    rows[0, 3:6] = direction[0] * np.sqrt(2)
    for k, corner in enumerate((0, 2, 3)):
        rows[1:, 3 * corner : 3 * corner + 3] = matrices[0, k] * np.sqrt(3)
    values = np.concatenate([[0.3 * np.sqrt(2)], np.array([0.1, -0.2, 0.3]) * np.sqrt(3)])
    np.testing.assert_allclose(system.matrix().toarray(), rows.T @ rows + 0.5 * np.eye(12), atol=1e-12)
    np.testing.assert_allclose(system.right.numpy().ravel(), rows.T @ values, atol=1e-12)


def test_the_direct_solution_solves_the_system(system: OffsetSystem) -> None:
    found = system.solve(torch.zeros_like(system.right))
    residual = system.matrix() @ found.numpy().ravel() - system.right.numpy().ravel()
    assert np.abs(residual).max() < 1e-10 * system.right.abs().max() + 1e-14


def test_the_iterative_solution_is_the_direct_one_from_any_start(system: OffsetSystem) -> None:
    expected = system.solve(torch.zeros_like(system.right))
    for start in (torch.zeros_like(system.right), 0.01 * torch.ones_like(system.right), expected):
        found = system.solve_iteratively(start)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_without_points_the_iterative_solver_works_too(system: OffsetSystem) -> None:
    system.corners, system.coupling = system.corners[:0], system.coupling[:0]
    expected = system.solve(torch.zeros_like(system.right))
    assert (system.solve_iteratively(torch.zeros_like(expected)) - expected).abs().max() < 1e-5 * expected.abs().max()
