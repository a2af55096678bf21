"""Regularisers of static offsets against loops over vertices, and their caps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from flame_fitting.fit.losses.offsets import (
    OffsetRegulariser,
    capped,
    difference_from_neighbours,
    neighbours,
)
from flame_fitting.head.model import HeadModel
from tests.fit.settings import offsets_of
from tests.toy import toy_head_data

PER_VERTEX = offsets_of(by_edge_length=False)
ONLY_L1 = replace(PER_VERTEX, l1=2.0, laplacian=0, rigid=0)
ONLY_LAPLACIAN = replace(PER_VERTEX, l1=0, laplacian=3.0, rigid=0)
ONLY_RIGID = replace(PER_VERTEX, l1=0, laplacian=0, rigid=5.0, rigid_for=("neck", "left_ear", "right_ear"))


@pytest.fixture(scope="module")
def head() -> HeadModel:
    """The toy head with ears that overlap its face."""
    data = toy_head_data()
    x = data.v_template[:, 0]
    ears = {"left_ear": np.flatnonzero(x > 0.055), "right_ear": np.flatnonzero(x < -0.055)}
    ears["ears"] = np.concatenate(list(ears.values()))
    return HeadModel(replace(data, regions=data.regions | ears)).double()


@pytest.fixture(scope="module")
def offset(head: HeadModel) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.003 * torch.randn(head.n_vertices, 3, generator=generator, dtype=torch.float64)


def _around(head: HeadModel) -> list[set[int]]:
    out: list[set[int]] = [set() for _ in range(head.n_vertices)]
    for face in head.faces.tolist():
        for corner in face:
            out[corner] |= set(face) - {corner}
    return out


def test_mean_absolute_offset(head, offset) -> None:
    weights = replace(ONLY_L1, l1_relaxed=0.25, l1_relaxed_for=("ears", "hair"))
    ears = set(head.regions["ears"].tolist())
    expected = sum((0.25 if v in ears else 1.0) * float(o.abs().mean()) for v, o in enumerate(offset))
    assert float(OffsetRegulariser(head, weights)(offset)) == pytest.approx(2.0 * expected / head.n_vertices)


def test_squared_laplacian(head, offset) -> None:
    ears = set(head.regions["ears"].tolist())
    expected = 0.0
    for v, near in enumerate(_around(head)):
        curved = offset[v] - offset[sorted(near)].mean(0)
        expected += (0.1 if v in ears else 1.0) * float(curved.square().sum())
    found = OffsetRegulariser(head, ONLY_LAPLACIAN)(offset)
    assert float(found) == pytest.approx(3.0 * expected / head.n_vertices)


def test_variance_of_rigid_regions(head, offset) -> None:
    expected = sum(float(offset[head.regions[name]].var(dim=0, unbiased=False).mean()) for name in ONLY_RIGID.rigid_for)
    regulariser = OffsetRegulariser(head, ONLY_RIGID)
    assert float(regulariser(offset)) == pytest.approx(5.0 * expected)
    shifted = offset.clone()
    shifted[head.regions["left_ear"]] = torch.tensor([0.004, -0.001, 0.0], dtype=torch.float64)
    shifted[head.regions["right_ear"]] = 0.0
    neck = float(offset[head.regions["neck"]].var(dim=0, unbiased=False).mean())
    assert not (head.region_mask("neck") & head.region_mask("ears")).any()
    assert float(regulariser(shifted)) == pytest.approx(5.0 * neck), "a shift of a whole ear costs nothing"


@pytest.mark.parametrize("weights", [ONLY_L1, ONLY_LAPLACIAN, ONLY_RIGID, offsets_of(rigid=300.0, blur_iter=2)])
def test_gradients(head, offset, weights) -> None:
    regulariser = OffsetRegulariser(head, weights)
    leaf = offset.clone().requires_grad_()
    (slope,) = torch.autograd.grad(regulariser(leaf), leaf)
    direction = torch.randn(offset.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = 1e-9  # so small that few signs change under the absolute value
    change = (regulariser(offset + step * direction) - regulariser(offset - step * direction)) / (2 * step)
    torch.testing.assert_close((slope * direction).sum(), change, rtol=1e-5, atol=0)


def test_a_head_without_regions_and_zero_weights(offset) -> None:
    bare = HeadModel(replace(toy_head_data(), regions={})).double()
    assert float(OffsetRegulariser(bare, ONLY_RIGID)(offset)) == 0
    assert float(OffsetRegulariser(bare, offsets_of(l1=0, laplacian=0, rigid=0))(offset)) == 0
    relaxed = OffsetRegulariser(bare, replace(ONLY_L1, l1_relaxed=0.0))(offset)
    torch.testing.assert_close(relaxed, OffsetRegulariser(bare, ONLY_L1)(offset))


def test_blur_spreads_the_factors_over_neighbours(head) -> None:
    sharp = OffsetRegulariser(head, PER_VERTEX).laplacian[:, 0]
    soft = OffsetRegulariser(head, replace(PER_VERTEX, blur_iter=1)).laplacian[:, 0]
    expected = torch.stack([sharp[[v, *sorted(near)]].mean() for v, near in enumerate(_around(head))])
    torch.testing.assert_close(soft, expected)
    assert set(sharp.unique().tolist()) == {0.1, 1.0}


def test_parts_have_their_own_neighbours_and_lone_vertices_none() -> None:
    """Two triangles apart from each other, and a vertex of none."""
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    values = torch.tensor([[0.0], [0.0], [3.0], [7.0], [7.0], [7.0], [9.0]])
    found = difference_from_neighbours(values, *neighbours(faces, 7))
    torch.testing.assert_close(found[:, 0], torch.tensor([-1.5, -1.5, 3.0, 0.0, 0.0, 0.0, 0.0]))


def test_caps_keep_directions_and_what_is_inside() -> None:
    offset = torch.tensor([[0.03, 0.04, 0.0], [0.0, 0.001, 0.0], [0.0, 0.0, 0.0]])
    found = capped(offset, torch.tensor([0.01, 0.01, 0.01]))
    torch.testing.assert_close(found, torch.tensor([[0.006, 0.008, 0.0], [0.0, 0.001, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(capped(offset[None].expand(2, 3, 3), torch.full((3,), 0.01))[1], found)
