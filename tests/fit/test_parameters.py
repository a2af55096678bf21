"""The specification of parameters: it agrees with the tensors and the options, and settles the gauge."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from flame_fitting.fit.parameters import (
    JAW_SHUT,
    OPTIONAL_KEYS,
    PARAMETER_KEYS,
    PARAMETERS,
    POSES,
    FitParameters,
    moving_parts,
)
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.stage_config import GROUPS
from flame_fitting.fit.weight_config import LearningRates, PriorConfig
from tests.toy import toy_head

JOINTS = ("neck_pose", "jaw_pose", "eyes_pose")
EVERYTHING = ("pose", "scale", "joints", "shape", "expr", "static_offset")


def test_tensors_are_as_specified():
    head = toy_head()
    assert FitParameters.neutral(head, 3).eyelids.shape == (3, 0)
    head.set_eyelids(np.zeros((head.n_vertices, 3, 2)))
    assert FitParameters.neutral(head, 3).dynamic_offset.shape == (3, 0, 3)
    neutral = FitParameters.neutral(head, 3).with_dynamic_offset()
    assert [p.name for p in PARAMETERS] == [f.name for f in fields(FitParameters)]
    for parameter in PARAMETERS:
        value = getattr(neutral, parameter.name)
        assert tuple(value.shape) == parameter.dims(head, 3)
        covered = torch.zeros(value.shape[-1])
        for part in parameter.parts:
            covered[part.span] += 1
            width = len(covered[part.span])
            assert {len(part.least), len(part.most)} <= {0, width} and len(part.prior_factors) in (1, width)
        assert (covered == 1).all(), "each coefficient belongs to one part"
    assert POSES == {"rotation": 3, "translation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6}
    assert set(PARAMETER_KEYS) == {f.name for f in fields(FitParameters)} - {"placement", "log_focal", *OPTIONAL_KEYS}
    assert OPTIONAL_KEYS == ("eyelids", "dynamic_offset")


def test_groups_rates_and_priors_are_options():
    rates, priors = {f.name for f in fields(LearningRates)}, {f.name for f in fields(PriorConfig)}
    parts = [part for parameter in PARAMETERS for part in parameter.parts]
    assert {part.group for part in parts} <= set(GROUPS)
    assert {part.rate for part in parts} <= rates
    named = {part.prior for part in parts} | {part.change for part in parts}
    # biases belong to landmarks, the size to all of the identity, others to changes or moments
    others = {"landmark_bias", "log_size", "steadied", "expr_several"}
    assert named - {None} == priors - others, "every prior holds something"
    jaw = next(part for part in parts if part.name == "jaw_pose")
    assert jaw.prior_sigmas(PriorConfig(jaw=0.3)) == pytest.approx((0.3, 0.1, 0.03)) and jaw.least[0] == JAW_SHUT


def test_gauge():
    """One timestep is placed, several move; the scale is free where its group is."""
    static = [part.name for part in moving_parts(EVERYTHING, False, JOINTS)]
    assert static == [
        *("placement_rotation", "placement_translation", "placement_scale", "shape", "expr", "eyelids"),
        *(*JOINTS, "static_offset"),
    ]
    moving = [part.name for part in moving_parts(EVERYTHING, True, JOINTS)]
    assert moving == [
        *("placement_scale", "shape", "expr", "eyelids", "rotation", "translation"),
        *(*JOINTS, "static_offset"),
    ]
    assert [part.name for part in moving_parts(("pose", "joints"), True, ("neck_pose",))] == [
        *("rotation", "translation", "neck_pose"),
    ]


def test_columns_put_what_is_shared_first_and_carry_values_there_and_back():
    head = toy_head().double()
    names = [part.name for part in moving_parts(EVERYTHING, True, JOINTS)]
    columns = Columns.of(head, names, {"shape": 4, "expr": 1000})
    assert columns.slices() == {
        "placement_scale": slice(0, 1),
        "shape": slice(1, 5),
        "expr": slice(5, 9),
        "rotation": slice(9, 12),
        "translation": slice(12, 15),
        "neck_pose": slice(15, 18),
        "jaw_pose": slice(18, 21),
        "eyes_pose": slice(21, 27),
    }
    assert (columns.n_shared, columns.count) == (5, 27)
    generator = torch.Generator().manual_seed(0)
    neutral = FitParameters.neutral(head, 3)
    drawn = {name: torch.randn(v.shape, generator=generator, dtype=v.dtype) for name, v in neutral.items().items()}
    there = FitParameters(**drawn)
    values = columns.values(there)
    assert values.shared.shape == (5,) and values.frames.shape == (3, 22)
    back = columns.with_values(neutral, values)
    for name, value in back.items().items():
        moved = torch.zeros(value.shape[-1], dtype=torch.bool)
        for block in columns.blocks:
            if block.parameter == name:
                moved[block.coefficients] = True
        torch.testing.assert_close(value, torch.where(moved, drawn[name], 0.0), atol=0, rtol=0)
    assert all((value == 0).all() for value in neutral.items().values()), "a copy"
    assert Columns.of(head, []).count == 0


@pytest.mark.parametrize("timesteps", [1, 8, 19])
def test_batches_are_all_timesteps_in_order(timesteps: int) -> None:
    head = toy_head().double()
    parameters = replace(FitParameters.neutral(head, timesteps), expr=torch.randn(timesteps, head.n_expr).double())
    batches = list(parameters.batches())
    assert max(some.timesteps for some in batches) <= 8
    torch.testing.assert_close(torch.cat([some.vertices(head) for some in batches]), parameters.vertices(head))
