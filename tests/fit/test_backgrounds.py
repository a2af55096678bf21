"""Backgrounds that the avatar's outline stands out from, and silhouettes that pull outwards near it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from flame_fitting.fit.backgrounds import contour_colors, far_colors, outline_targets, recomposite
from flame_fitting.fit.losses.photometric import picture_loss
from flame_fitting.fit.rendering import HeadRenderer
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.render.mesh import clip_positions
from tests.fit.pictures import around, draw
from tests.toy import toy_head

HAIR, SKIN, WHITE = torch.tensor([0.1, 0.08, 0.05]), torch.tensor([0.8, 0.6, 0.5]), torch.ones(3)
SIZE = 96


def _disc(color: Tensor, background: Tensor, size: int = 80, radius: float = 25.0) -> Tensor:
    """(1, H, W, 4) a disc of `color`, blue in its middle, composited on a background; its alpha is soft at the edge."""
    at = torch.arange(size) + 0.5 - size / 2
    apart = (at[:, None] ** 2 + at**2).sqrt()
    alpha = (radius + 0.5 - apart).clamp(0, 1)[..., None]
    own = torch.where((apart < 0.6 * radius)[..., None], torch.tensor([0.0, 0.0, 1.0]), color)
    return torch.cat([alpha * own + (1 - alpha) * background, alpha], dim=-1)[None]


@pytest.mark.parametrize("stored", [torch.uint8, torch.float16])
def test_contour_colours_are_the_avatars_own_along_its_outline(stored: torch.dtype) -> None:
    pictures = torch.cat([_disc(SKIN, WHITE), _disc(HAIR, WHITE)])
    pictures = (pictures * 255).round().to(stored) if stored == torch.uint8 else pictures.to(stored)
    found = contour_colors(pictures, number=100)
    assert 60 < len(found) <= 110 and found.dtype == torch.float32
    apart = torch.stack([(found - color).abs().amax(-1) for color in (SKIN, HAIR)])
    assert (apart.amin(0) < 0.012).all(), "neither the background nor the middle of the disc"
    assert ((apart < 0.012).float().mean(1) > 0.4).all(), "every view counts the same"


def test_contour_colours_of_pictures_that_are_all_avatar_or_all_empty() -> None:
    full = torch.cat([SKIN, torch.ones(1)]).expand(2, 20, 20, 4)
    torch.testing.assert_close(contour_colors(full, 10)[0], SKIN)
    nothing = contour_colors(torch.zeros(2, 20, 20, 4))
    assert nothing.shape == (0, 3) and far_colors(nothing, 3).shape == (3, 3)


@pytest.mark.parametrize("colors", [[HAIR], [SKIN], [WHITE], [HAIR, SKIN, WHITE]])
def test_far_colours_are_far_and_different(colors: list[Tensor]) -> None:
    contour = torch.stack(colors).repeat(50, 1)
    found = far_colors(contour, 4)
    apart = (found[:, None] - contour).abs().mean(-1)
    assert len(found.unique(dim=0)) == 4 and ((found >= 0) & (found <= 1)).all()
    assert apart[0].min() > (0.5 if len(colors) == 1 else 0.3)
    assert apart.mean(0).min() > 0.35, "together they stand out from all"
    lattice = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 3)
    best = (lattice[:, None] - contour).abs().mean(-1).amin(1).max()
    assert apart[0].min() == pytest.approx(float(best), abs=1e-6)


def test_a_rare_colour_does_not_decide() -> None:
    contour = torch.cat([HAIR.expand(970, 3), WHITE.expand(30, 3)])
    assert (far_colors(contour, 1)[0] - WHITE).abs().max() == 0


@pytest.mark.parametrize("stored", [torch.uint8, torch.float16, torch.float32])
def test_another_background(stored: torch.dtype) -> None:
    old, new = torch.tensor([0.2, 0.9, 0.4]), torch.tensor([1.0, 0.0, 0.5])
    pictures = torch.cat([_disc(SKIN, old), _disc(HAIR, old, radius=12.0), _disc(HAIR, old, radius=30.0)])
    given = (pictures * 255).round().to(stored) if stored == torch.uint8 else pictures.to(stored)
    out = torch.full(pictures.shape, 7.0, dtype=torch.float16)
    recomposite(given, old, new, out, pixels=2 * 80 * 80)  # parts of two views and of one
    expected = torch.cat([_disc(SKIN, new), _disc(HAIR, new, radius=12.0), _disc(HAIR, new, radius=30.0)])
    torch.testing.assert_close(out[..., :3].float(), expected[..., :3], rtol=0, atol=0.006)
    assert (out[..., 3] == 7.0).all(), "the fourth channel is left alone"


def test_an_outline_of_the_backgrounds_colour_stands_out_from_the_far_one() -> None:
    picture = _disc(WHITE, WHITE)
    outline = contour_colors(picture)
    far = far_colors(outline, 4)
    empty = picture[..., 3] == 0
    assert (picture[empty][:, None, :3] - outline[:20]).abs().max() < 1e-6
    for color in far:
        out = torch.empty_like(picture)
        recomposite(picture, WHITE, color, out)
        assert (out[empty][:, None, :3] - outline[:20]).abs().mean(-1).min() > 0.4


def test_targets_of_the_outline_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    alpha = torch.zeros(2, 14, 12)
    alpha[0, 3:, 2:10] = 1.0  # cut by the picture's lower border
    alpha[0, 3, 2:10] = 0.5
    alpha[1, 2:12, 2:12] = torch.rand(10, 10, generator=generator) * 0.5 + 0.5
    found = outline_targets(alpha, 2, 0.3)
    for view in range(2):
        for row in range(14):
            for column in range(12):
                around = alpha[view, max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
                own = float(alpha[view, row, column])
                expected = own * (1.3 if (around == 0).any() else 1.0)
                assert float(found[view, row, column]) == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(found[0, 13, 5], torch.tensor(1.0)), "the picture's border is no outline"


@pytest.fixture(scope="module")
def scene():
    """A head of one colour before three cameras, on a background of the same colour."""
    head = toy_head()
    texture = np.full((32, 32, 3), 200, dtype=np.uint8)
    views = draw(head, head.v_template.numpy(), texture, around(3), SIZE)
    same = torch.full((3,), 200 / 255)
    pictures = views.pictures()
    on_same = pictures.clone()
    recomposite(pictures, pictures[0, 0, 0, :3], same, on_same)
    assert (on_same[..., :3] - same).abs().max() < 0.01
    return head, HeadRenderer(make_rasterizer("cpu"), head), views, on_same, same


def _pull(scene, pictures: Tensor, size: float, photo: float, silhouette: float) -> float:
    """Slope of the loss by the size of the head: positive pulls the outline inwards."""
    head, renderer, views, _, same = scene
    scale = torch.tensor(size, requires_grad=True)
    pos = clip_positions(scale * head.v_template[None], views.clip)
    texture = same.expand(1, 32, 32, 3).contiguous()
    painted = renderer.draw(pos, (SIZE, SIZE), texture, pictures).painted
    _, slope = picture_loss(painted.detach(), pictures, torch.tensor(1000.0), photo, silhouette)
    (found,) = torch.autograd.grad(painted, scale, slope)
    return float(found)


def test_pictures_pull_a_head_back_that_outgrows_an_avatar_of_the_backgrounds_colour(scene) -> None:
    on_same, same = scene[3], scene[4]
    on_far = on_same.clone()
    recomposite(on_same, same, far_colors(contour_colors(on_same), 1)[0], on_far)
    assert abs(_pull(scene, on_same, 1.1, 1.0, 0.0)) < 0.02, "no contrast, no pull"
    assert _pull(scene, on_far, 1.1, 1.0, 0.0) > 1.0


def test_a_head_inside_the_outline_is_pulled_out_to_it_and_no_further(scene) -> None:
    on_same = scene[3]
    near, wide = on_same.clone(), on_same.clone()
    near[..., 3] = outline_targets(on_same[..., 3], 2, 0.5)
    wide[..., 3] = outline_targets(on_same[..., 3], 8, 0.5)
    outside = _pull(scene, on_same, 1.1, 0.0, 1.0)
    assert outside > 1.0 and _pull(scene, wide, 1.1, 0.0, 1.0) == pytest.approx(outside)
    assert abs(_pull(scene, on_same, 0.9, 0.0, 1.0)) < 0.02
    assert _pull(scene, wide, 0.9, 0.0, 1.0) < -0.3 * outside
    assert abs(_pull(scene, near, 0.85, 0.0, 1.0)) < 0.02, "deep inside nothing pulls"
