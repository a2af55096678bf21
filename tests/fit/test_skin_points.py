"""Spots of a head's skin followed through pictures of known truth, seen through a fit that is off by millimetres."""

from dataclasses import replace

import numpy as np
import torch

from flame_fitting.fit import skin_points
from flame_fitting.fit.feature_tracks import FeatureTracks, follow
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.skin_points import Shown, looked_at, on_the_skin
from flame_fitting.head.model import HeadModel
from flame_fitting.render.backend import make_rasterizer
from tests.fit.pictures import around, draw
from tests.toy import toy_head

SIZE, FRAMES, ANCHOR = 256, 9, 4


def speckled(resolution: int = 512) -> np.ndarray:
    """(R, R, 3) uint8: skin with spots of a few millimetres."""
    import cv2

    noise = np.random.default_rng(5).uniform(-1, 1, (resolution, resolution)).astype(np.float32)
    spots = cv2.GaussianBlur(noise, (0, 0), 3.0)
    grey = 150 + 45 * spots / spots.std()
    return np.clip(np.repeat(grey[..., None], 3, axis=2), 0, 255).astype(np.uint8)


def turning(head: HeadModel) -> FitParameters:
    """A head that turns from side to side and talks a little."""
    generator = torch.Generator().manual_seed(0)
    out = FitParameters.neutral(head, FRAMES)
    out.shape[:] = torch.randn(head.n_shape, generator=generator, dtype=torch.float64)
    course = torch.linspace(-1, 1, FRAMES, dtype=torch.float64)
    out.rotation[:, 1], out.rotation[:, 0] = 0.3 * course, 0.08 * course**2
    out.translation[:, 0] = 0.01 * course
    out.expr[:] = 0.5 * torch.sin(3 * course[:, None] + torch.arange(head.n_expr))
    return out


def shown_of(head: HeadModel, truth: FitParameters) -> Shown:
    """The pictures with the true head in them."""
    vertices = truth.vertices(head)
    drawn = [draw(head, one.numpy(), speckled(), around(1), SIZE) for one in vertices]
    grey = np.stack([one.rgba[0, ..., 0].numpy() for one in drawn])
    K, camera = (torch.as_tensor(np.concatenate([getattr(one, name) for one in drawn])) for name in ("K", "camera"))
    return Shown(grey, K, camera, torch.cat([one.clip for one in drawn]), vertices)


def true_places(head: HeadModel, shown: Shown, start: torch.Tensor) -> torch.Tensor:
    """(T, N, 2) where the true surface under the anchor's pixels is in every picture."""
    corners, barycentric, _, inside, _ = skin_points._under(make_rasterizer("cpu"), head, shown, ANCHOR, start[:, None])
    assert inside.all()
    points = torch.einsum("tnkc,nk->tnc", shown.vertices[:, corners[:, 0]], barycentric[:, 0])
    return skin_points._projected(points, shown.K, shown.camera)


def test_spots_are_told_to_a_fraction_of_a_pixel_by_a_fit_that_is_off() -> None:
    head, rasterizer = toy_head().double(), make_rasterizer("cpu")
    truth = turning(head)
    shown = shown_of(head, truth)
    off = replace(truth, shape=0.3 * truth.shape, expr=torch.zeros_like(truth.expr), rotation=truth.rotation + 0.03)
    off = replace(off, translation=truth.translation + torch.tensor([0.002, -0.001, 0.01]))
    fitted = replace(shown, vertices=off.vertices(head))
    assert (fitted.vertices - shown.vertices).norm(dim=-1).median() > 0.003
    tracks = follow(shown.grey, looked_at(rasterizer, head, fitted, [ANCHOR]), 40)
    points = on_the_skin(rasterizer, head, fitted, tracks)
    count = len(points.corners)
    assert count >= 15 and points.found.double().mean() > 0.6
    # at the anchor a spot lies where the pixel meets the fit
    at_anchor = torch.einsum("nkc,nk->nc", fitted.vertices[ANCHOR, points.corners], points.barycentric)
    start = points.place[ANCHOR]
    projected = skin_points._projected(at_anchor[None], shown.K[[ANCHOR]], shown.camera[[ANCHOR]])[0]
    assert (projected - start).norm(dim=-1).max() < 0.1
    error = (points.place - true_places(head, shown, start)).norm(dim=-1)
    told = error[points.found]
    assert told.median() < 0.1 and told.quantile(0.95) < 0.5
    # without the patches, as they were followed
    rows = [int((torch.as_tensor(tracks[0].start) - one).norm(dim=1).argmin()) for one in start]
    followed = torch.as_tensor(tracks[0].place[:, rows])
    before = (followed - true_places(head, shown, start)).norm(dim=-1)[points.found]
    assert told.mean() < before.mean()


def test_skin_that_turns_away_and_what_is_no_skin_is_not_looked_at() -> None:
    head, rasterizer = toy_head().double(), make_rasterizer("cpu")
    truth = FitParameters.neutral(head, 2)
    truth.rotation[1, 1] = np.pi
    whole = shown_of(head, turning(head))
    shown = Shown(whole.grey[:2], whole.K[:2], whole.camera[:2], whole.clip[:2], truth.vertices(head))
    front, back = looked_at(rasterizer, head, shown, [0, 1]).values()
    assert not back.any() and front.sum() > 0
    corners, _, _, inside, _ = skin_points._under(
        rasterizer, head, shown, 0, torch.as_tensor(np.argwhere(front)[:, None, ::-1] + 0.5)
    )
    assert inside.all()
    face = head.region_mask("face")
    assert face[corners].all()


def test_a_spot_that_something_hides_is_not_told_there() -> None:
    head, rasterizer = toy_head().double(), make_rasterizer("cpu")
    shown = shown_of(head, turning(head))
    (track,) = follow(shown.grey, looked_at(rasterizer, head, shown, [ANCHOR]), 30)
    hidden = shown.grey.copy()
    hidden[6] = np.random.default_rng(1).integers(0, 255, hidden[6].shape)
    # as if the corners had been followed into it
    whole = FeatureTracks(ANCHOR, track.start, np.nan_to_num(track.place, nan=float(SIZE) / 2))
    told = on_the_skin(rasterizer, head, replace(shown, grey=hidden), [whole])
    assert told.found[6].double().mean() < 0.05 and told.found[5].double().mean() > 0.5
    assert on_the_skin(rasterizer, head, shown, []).place.shape == (FRAMES, 0, 2)
