"""Points that slide over the skin are told from those that stay on one spot of it."""

from dataclasses import replace

import pytest
import torch

from flame_fitting.fit.skin_points import SkinPoints, _projected
from flame_fitting.fit.steady_points import steady, typical, unexplained
from tests.fit.test_skin_points import FRAMES, shown_of, turning
from tests.toy import toy_head

COUNT = 40


def followed(off: float = 0.0, noise: float = 0.05):
    """Points of a fit's skin, seen where the true skin, so far off from the fit, shows them; a third is not seen.

    `noise` is the standard deviation of a place along each axis, px.
    """
    head = toy_head().double()
    truth, generator = turning(head), torch.Generator().manual_seed(1)
    shown = shown_of(head, truth)
    faces = torch.nonzero(head.region_mask("face")[head.faces].all(1))[:, 0]
    corners = head.faces[faces[torch.randperm(len(faces), generator=generator)[:COUNT]]]
    barycentric = torch.full((COUNT, 3), 1 / 3, dtype=torch.float64)
    points = torch.einsum("tnkc,nk->tnc", shown.vertices[:, corners], barycentric)
    # the same place in the axes of the head, which it turns with
    moved = points + off * torch.nn.functional.normalize(points - points.mean(1, keepdim=True), dim=-1)
    place = _projected(moved, shown.K, shown.camera)
    place = place + noise * torch.randn(place.shape, generator=generator, dtype=torch.float64)
    place[torch.rand(place.shape[:2], generator=generator) < 0.3] = torch.nan
    sigma = torch.where(torch.isfinite(place[..., 0]), 0.05, torch.nan).double()
    return shown, SkinPoints(corners, barycentric, place, sigma)


def test_a_spot_beside_the_fits_skin_is_explained() -> None:
    shown, points = followed(off=0.003)
    assert float(unexplained(points, shown).max()) < 0.25
    assert len(steady(points, shown).corners) == COUNT


def test_what_slides_is_left_out_and_the_rest_is_as_it_was() -> None:
    shown, points = followed()
    place = points.place.clone()
    sliding = torch.arange(0, COUNT, 5)
    place[:, sliding, 0] += 2.0 * torch.sin(torch.arange(FRAMES).double())[:, None]
    lost = 1
    place[4:, lost] += 30.0
    kept = steady(replace(points, place=place), shown)
    others = [k for k in range(COUNT) if k % 5 and k != lost]
    assert torch.equal(kept.corners, points.corners[others])
    torch.testing.assert_close(kept.place, points.place[:, others], equal_nan=True, rtol=0, atol=0)
    assert kept.sigma.shape == (FRAMES, len(others))


@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_what_points_are_off_by_is_told_whatever_a_few_of_them_do(noise: float) -> None:
    """Of both axes together, less what the place on the skin takes of it: 3 of 2 FRAMES numbers, a third unseen."""
    shown, points = followed(noise=noise)
    expected = noise * (2 - 3 / (2 / 3 * FRAMES)) ** 0.5
    assert typical(points, shown) == pytest.approx(expected, rel=0.15)
    place = points.place.clone()
    place[:, ::4, 0] += 2.0 * torch.sin(torch.arange(FRAMES).double())[:, None]
    place[:, 1::8] = torch.nan
    assert typical(replace(points, place=place), shown) == pytest.approx(expected, rel=0.25)


def test_without_points_there_are_none() -> None:
    shown, points = followed()
    none = SkinPoints(points.corners[:0], points.barycentric[:0], points.place[:, :0], points.sigma[:, :0])
    assert len(steady(none, shown).corners) == 0 and typical(none, shown) == 0
    unseen = replace(points, place=torch.full_like(points.place, torch.nan))
    assert len(steady(unseen, shown).corners) == 0 and typical(unseen, shown) == 0
