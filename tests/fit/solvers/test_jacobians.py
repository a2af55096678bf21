"""The closed-form Jacobian against finite differences of the forward pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flame_fitting.fit.parameters import POSES, FitParameters, moving_parts
from flame_fitting.fit.solvers.block_arrow import BlockVector
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.jacobians import Linearizer, skinning_rotations
from tests.toy import toy_head


def _blinking_head():
    head = toy_head()
    shapes = 0.01 * np.random.default_rng(5).normal(size=(head.n_vertices, 3, 2))
    head.set_eyelids(shapes)
    return head.double()


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


@pytest.mark.parametrize("placement", ["placement", "placement_scale", ("placement_rotation", "placement_translation")])
def test_jacobian_equals_finite_differences(placement):
    head = _blinking_head()
    parameters = _random_parameters(head)
    names = [*([placement] if isinstance(placement, str) else placement), "shape", "expr", "eyelids", *POSES]
    columns = Columns.of(head, names, {"shape": head.n_shape - 1})
    assert columns.coefficients("placement") == {"placement": 7, "placement_scale": 1}.get(str(placement), 6)
    assert columns.coefficients("shape") == head.n_shape - 1
    linearizer = Linearizer(head, columns)
    for timestep in (0, 1):
        vertices, jacobian = linearizer(parameters, timestep)
        torch.testing.assert_close(vertices, parameters.vertices(head)[timestep])
        torch.testing.assert_close(linearizer.vertices(parameters, timestep), vertices)
        assert jacobian.shape == (head.n_vertices, 3, columns.count)
        for block in columns.blocks:
            for column in range(block.columns.start, block.columns.stop):
                values = []
                for sign in (1, -1):
                    moved = getattr(parameters, block.parameter).clone()
                    row = moved if moved.ndim == 1 else moved[timestep]
                    row[block.coefficients.start + column - block.columns.start] += sign * 1e-6
                    values.append(replace(parameters, **{block.parameter: moved}).vertices(head)[timestep])
                numeric = (values[0] - values[1]) / 2e-6
                torch.testing.assert_close(jacobian[..., column], numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("names", [("scale", "pose", "shape", "expr"), ("pose", "expr")])
def test_jacobian_of_unknowns_in_the_reference_frame(names):
    """By central differences of the unknowns themselves, with a scale that moves or is held."""
    head = _blinking_head()
    parameters = _random_parameters(head)
    parts = [part.name for part in moving_parts(names, True, ())]
    columns = Columns.of(head, parts, metric=True)
    at = columns.values(parameters)
    torch.testing.assert_close(at.frames[:, :4], parameters.expr * parameters.placement[6].exp())
    for name, value in columns.with_values(parameters, at).items().items():
        torch.testing.assert_close(value, getattr(parameters, name))
    _, jacobian = Linearizer(head, columns)(parameters, 1)
    for column in range(columns.count):
        moved = []
        for sign in (1e-6, -1e-6):
            x = BlockVector(at.shared.clone(), at.frames.clone())
            if column < columns.n_shared:
                x.shared[column] += sign
            else:
                x.frames[1, column - columns.n_shared] += sign
            moved.append(columns.with_values(parameters, x).vertices(head)[1])
        torch.testing.assert_close(jacobian[..., column], (moved[0] - moved[1]) / 2e-6, rtol=1e-5, atol=1e-7)


def test_chosen_vertices_are_those_of_the_whole_head():
    head = _blinking_head()
    parameters = _random_parameters(head)
    columns = Columns.of(head, ["placement", "shape", "expr", "eyelids", *POSES])
    chosen = torch.tensor([600, 3, 77, 3])
    vertices, jacobian = Linearizer(head, columns)(parameters, 1)
    some, of_some = Linearizer(head, columns, chosen)(parameters, 1)
    torch.testing.assert_close(some, vertices[chosen])
    torch.testing.assert_close(of_some, jacobian[chosen])


def test_without_columns_there_are_vertices_alone():
    head = toy_head().double()
    parameters = _random_parameters(head)
    vertices, jacobian = Linearizer(head, Columns.of(head, []))(parameters)
    torch.testing.assert_close(vertices, parameters.vertices(head)[0])
    assert jacobian.shape == (head.n_vertices, 3, 0)


def test_skinning_rotations_carry_a_displacement():
    head = toy_head().double()
    parameters = _random_parameters(head, 1)
    matrices = skinning_rotations(head, parameters)
    head.J_regressor.zero_()  # joints that do not follow the offsets
    step = torch.as_tensor(np.random.default_rng(0).normal(size=(1, head.n_vertices, 3))) * 1e-3
    moved = replace(parameters, static_offset=parameters.static_offset + step).vertices(head)
    change = moved[0] - parameters.vertices(head)[0]
    torch.testing.assert_close(change, torch.einsum("vab,vb->va", matrices, step[0]))
