"""Adam against torch's own, and what it refuses."""

import pytest
import torch

from flame_fitting.fit.solvers.fused_adam import Adam


def test_steps_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = torch.ones(9, 3), torch.ones(9, 3, requires_grad=True)
    mine, reference = Adam([(ours, 5e-3, 1e-8)]), torch.optim.Adam([theirs], lr=5e-3)
    for _ in range(20):
        theirs.grad = torch.randn(9, 3, generator=generator)
        mine.step([theirs.grad])
        reference.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_tensors_with_strides_are_refused() -> None:
    """In place and by position in memory: a transposed tensor would be moved along other elements' slopes."""
    with pytest.raises(ValueError, match="contiguous"):
        Adam([(torch.zeros(3, 9).T, 5e-3, 1e-8)])
