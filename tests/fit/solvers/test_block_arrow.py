"""Block-arrow systems against dense linear algebra."""

import pytest
import torch

from flame_fitting.fit.solvers.block_arrow import BlockArrow, BlockVector

SIZES = [(1, 4, 3), (2, 3, 2), (6, 4, 5), (5, 3, 0), (1, 3, 0), (4, 0, 3), (1, 0, 3), (3, 0, 0), (7, 1, 1)]
"""Timesteps, unknowns of each, shared unknowns."""


def _draw(timesteps: int, own: int, shared: int, seed: int, chained: bool = True) -> BlockArrow:
    """A random positive definite system: the product of a random factor of the same pattern with its transpose."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    factor = torch.zeros(timesteps * own + shared, timesteps * own + shared, dtype=torch.float64)
    for t in range(timesteps):
        here, after = slice(t * own, (t + 1) * own), slice((t + 1) * own, (t + 2) * own)
        factor[here, here] = normal(own, own) + 3 * torch.eye(own)
        if chained and t + 1 < timesteps:
            factor[after, here] = normal(own, own)
        factor[timesteps * own :, here] = normal(shared, own)
    factor[timesteps * own :, timesteps * own :] = normal(shared, shared) + 3 * torch.eye(shared)
    # lower triangular, so that the product has the pattern of the factor
    dense = factor.tril() @ factor.tril().T
    rows = dense[: timesteps * own].reshape(timesteps, own, len(dense))
    blocks = rows[..., : timesteps * own].reshape(timesteps, own, timesteps, own)
    return BlockArrow(
        corner=dense[timesteps * own :, timesteps * own :],
        arrow=rows[..., timesteps * own :],
        diagonal=torch.stack([blocks[t, :, t] for t in range(timesteps)]),
        below=torch.stack([*(blocks[t + 1, :, t] for t in range(timesteps - 1)), blocks.new_zeros(own, own)])[:-1],
    )


def _dense(system: BlockArrow) -> torch.Tensor:
    timesteps, own, shared = system.arrow.shape
    out = torch.zeros(timesteps * own + shared, timesteps * own + shared, dtype=torch.float64)
    for t in range(timesteps):
        here, after = slice(t * own, (t + 1) * own), slice((t + 1) * own, (t + 2) * own)
        out[here, here] = system.diagonal[t]
        out[here, timesteps * own :] = system.arrow[t]
        out[timesteps * own :, here] = system.arrow[t].T
        if t + 1 < timesteps:
            out[after, here] = system.below[t]
            out[here, after] = system.below[t].T
    out[timesteps * own :, timesteps * own :] = system.corner
    return out


def _vector(system: BlockArrow, seed: int) -> BlockVector:
    generator = torch.Generator().manual_seed(seed)
    timesteps, own, shared = system.arrow.shape
    return BlockVector(
        torch.randn(shared, generator=generator, dtype=torch.float64),
        torch.randn(timesteps, own, generator=generator, dtype=torch.float64),
    )


def _flat(vector: BlockVector) -> torch.Tensor:
    return torch.cat([vector.frames.flatten(), vector.shared])


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", SIZES)
def test_product_and_solution_are_those_of_the_dense_matrix(size, seed, chained):
    system = _draw(*size, seed, chained)
    dense, x = _dense(system), _vector(system, seed)
    torch.testing.assert_close(_flat(system.times(x)), dense @ _flat(x))
    assert x.dot(x) == pytest.approx(float(_flat(x) @ _flat(x)))
    found = system.factorised().solve(x)
    torch.testing.assert_close(_flat(found), torch.linalg.solve(dense, _flat(x)), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", SIZES)
def test_blocks_of_the_inverse_are_those_of_the_dense_inverse(size, seed, chained):
    system = _draw(*size, seed, chained)
    timesteps, own, _ = size
    inverse = torch.linalg.inv(_dense(system))
    shared, frames = system.factorised().inverse_blocks()
    torch.testing.assert_close(shared, inverse[timesteps * own :, timesteps * own :], rtol=1e-8, atol=1e-10)
    assert frames.shape == (timesteps, own, own)
    for t in range(timesteps):
        here = slice(t * own, (t + 1) * own)
        torch.testing.assert_close(frames[t], inverse[here, here], rtol=1e-8, atol=1e-10)


def test_held_unknowns_are_cut_off_and_the_rest_is_solved_without_them():
    system = _draw(4, 3, 2, seed=1)
    held = torch.tensor([[0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 0, 1]], dtype=torch.bool)
    right = _vector(system, 2)
    right = right._replace(frames=torch.where(held, 0.0, right.frames))
    found = system.holding(held).factorised().solve(right)
    assert (found.frames[held] == 0).all()
    free = torch.cat([~held.flatten(), torch.ones(2, dtype=torch.bool)])
    alone = torch.linalg.solve(_dense(system)[free][:, free], _flat(right)[free])
    torch.testing.assert_close(_flat(found)[free], alone, rtol=1e-8, atol=1e-10)


def test_damping_is_in_proportion_to_the_diagonal():
    system = _draw(3, 2, 2, seed=4)
    dense = _dense(system)
    torch.testing.assert_close(_dense(system.damped(0.5)), dense + 0.5 * torch.diag(dense.diagonal()))
    nothing = BlockArrow(*(torch.zeros_like(m) for m in (system.corner, system.arrow, system.diagonal, system.below)))
    assert (
        nothing.damped(0.0).factorised().solve(_vector(system, 0)._replace(shared=torch.zeros(2).double())).shared == 0
    ).all()


def test_a_system_that_is_not_positive_definite_is_refused():
    system = _draw(3, 2, 2, seed=5)
    diagonal = system.diagonal.clone()
    diagonal[1] -= 100 * torch.eye(2)
    with pytest.raises(torch.linalg.LinAlgError):
        BlockArrow(system.corner, system.arrow, diagonal, system.below).factorised()
