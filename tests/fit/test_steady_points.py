"""Points that slide over the skin are told from those that stay on one spot of it."""

from dataclasses import replace

import torch

from flame_fitting.fit.skin_points import SkinPoints, _projected
from flame_fitting.fit.steady_points import steady, unexplained
from tests.fit.test_skin_points import FRAMES, shown_of, turning
from tests.toy import toy_head

COUNT = 40


def followed(off: float = 0.0):
    """Points of a fit's skin, seen where the true skin, so far off from the fit, shows them; a third is not seen."""
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
    place = place + 0.05 * torch.randn(place.shape, generator=generator, dtype=torch.float64)
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


def test_without_points_there_are_none() -> None:
    shown, points = followed()
    none = SkinPoints(points.corners[:0], points.barycentric[:0], points.place[:, :0], points.sigma[:, :0])
    assert len(steady(none, shown).corners) == 0
    unseen = replace(points, place=torch.full_like(points.place, torch.nan))
    assert len(steady(unseen, shown).corners) == 0
