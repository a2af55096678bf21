"""The closed-form Jacobian against finite differences of the forward pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.fit.linearize import Columns, linearize, skinning_rotations
from flame_fitting.fit.parameters import POSES, FitParameters
from tests.toy import toy_head


def _random_parameters(head, timesteps=2):
    generator = torch.Generator().manual_seed(3)
    neutral = FitParameters.neutral(head, timesteps)
    scale = {"static_offset": 1e-3, "placement": 0.2}
    return FitParameters(
        **{
            name: torch.randn(value.shape, generator=generator, dtype=torch.float64) * scale.get(name, 0.3)
            for name, value in neutral.items().items()
        }
    )


@pytest.mark.parametrize("scale", [True, False])
def test_jacobian_equals_finite_differences(scale):
    head = toy_head().double()
    parameters = _random_parameters(head)
    columns = Columns(placement=True, n_shape=head.n_shape - 1, n_expr=head.n_expr, poses=POSES, scale=scale)
    assert columns.slices()["placement"] == slice(0, 7 if scale else 6)
    for timestep in (0, 1):
        vertices, jacobian = linearize(head, parameters, columns, timestep)
        torch.testing.assert_close(vertices, parameters.vertices(head)[timestep])
        assert jacobian.shape == (head.n_vertices, 3, columns.count)
        for name, span in columns.slices().items():
            for column in range(span.stop - span.start):
                values = []
                for sign in (1, -1):
                    moved = getattr(parameters, name).clone()
                    row = moved if moved.ndim == 1 else moved[timestep]
                    row[column] += sign * 1e-6
                    values.append(replace(parameters, **{name: moved}).vertices(head)[timestep])
                numeric = (values[0] - values[1]) / 2e-6
                torch.testing.assert_close(jacobian[..., span.start + column], numeric, rtol=1e-5, atol=1e-7)


def test_skinning_rotations_carry_a_displacement():
    head = toy_head().double()
    parameters = _random_parameters(head, 1)
    matrices = skinning_rotations(head, parameters)
    head.J_regressor.zero_()  # joints that do not follow the offsets
    step = torch.as_tensor(np.random.default_rng(0).normal(size=(1, head.n_vertices, 3))) * 1e-3
    moved = replace(parameters, static_offset=parameters.static_offset + step).vertices(head)
    change = moved[0] - parameters.vertices(head)[0]
    torch.testing.assert_close(change, torch.einsum("vab,vb->va", matrices, step[0]))
