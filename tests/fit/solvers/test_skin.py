"""Points that are posed themselves, against the means of posed vertices."""

import pytest
import torch

from flame_fitting.fit.parameters import POSES
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.jacobians import Linearizer
from flame_fitting.fit.solvers.skin import Points, different
from tests.fit.solvers.test_jacobians import _random_parameters
from tests.toy import toy_head


def _group(head, seed, count, width, total=None):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(head.n_vertices, (count, width), generator=generator)
    shares = torch.rand(count, width, generator=generator, dtype=torch.float64)
    return corners, shares if total is None else shares - shares.mean(1, keepdim=True) + total / width


@pytest.mark.parametrize("metric", [False, True])
def test_points_and_their_jacobian_are_the_sums_of_those_of_vertices(metric):
    """Of means, of differences, which no translation moves, and of sums of any size."""
    head = toy_head().double()
    parameters = _random_parameters(head, 3).with_dynamic_offset()
    parameters.dynamic_offset.normal_(0, 1e-3, generator=torch.Generator().manual_seed(0))
    columns = Columns.of(head, ["placement", "log_focal", "shape", "expr", *POSES], metric=metric)
    groups = [_group(head, 0, 5, 3, 1.0), _group(head, 1, 4, 6, 0.0), _group(head, 2, 1, 200)]
    vertices, jacobian = Linearizer(head, columns).of(parameters, slice(1, 3))
    linearizer = Linearizer(head, columns, Points(head, groups))
    points, of_points = linearizer.of(parameters, slice(1, 3))
    assert points.shape == (2, 10, 3)
    torch.testing.assert_close(
        points, torch.cat([torch.einsum("tnmc,nm->tnc", vertices[:, c], s) for c, s in groups], dim=1)
    )
    torch.testing.assert_close(
        of_points, torch.cat([torch.einsum("tnmcp,nm->tncp", jacobian[:, c], s) for c, s in groups], dim=1)
    )
    torch.testing.assert_close(linearizer.vertices_of(parameters, slice(1, 3)), points)


def test_joints_that_carry_no_point_are_left_out():
    head = toy_head().double()
    head.weights[:50] = 0.0
    head.weights[:50, 1] = 1.0
    points = Points(head, [(torch.arange(30).reshape(10, 3), torch.full((10, 3), 1 / 3).double())])
    assert points.joints == [1] and points.of(head.v_template).shape == (10, 3)


def test_the_same_point_in_several_groups_is_one():
    head = toy_head().double()
    corners, shares = _group(head, 0, 5, 3)
    more = _group(head, 1, 2, 6)
    found, number = different([(corners[:3], shares[:3]), more, (corners[1:], shares[1:])])
    assert [len(one) for one, _ in found] == [5, 2]
    for group, own in zip(([corners[:3], shares[:3]], more, [corners[1:], shares[1:]]), number, strict=True):
        start, (all_corners, all_shares) = (5, found[1]) if group is more else (0, found[0])
        assert torch.equal(all_corners[own - start], group[0]) and torch.equal(all_shares[own - start], group[1])
