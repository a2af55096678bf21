"""Baked textures against the texture that the pictures were rendered with."""

import numpy as np
import pytest
import torch
from torch import Tensor

from flame_fitting.fit.texture import Bake, bake, complete, region_smoothed, texel_map
from flame_fitting.render.backend import make_rasterizer
from flame_fitting.render.texturing import TexelMap
from tests.fit.pictures import around, draw, plates, smooth_texture
from tests.toy import toy_head

SIZE = 128


def clear_of_the_seam(head, texels: TexelMap) -> Tensor:
    """Texels of triangles that do not reach across the picture: the toy's coordinates have no seam at its back."""
    uv = head.uv[head.uv_faces]
    narrow = (uv.amax(1) - uv.amin(1)).amax(-1) < 0.2
    return texels.covered & narrow[texels.face.clamp_min(0)]


@pytest.fixture(scope="module")
def toy_bake():
    head, truth, rasterizer = toy_head(), smooth_texture(SIZE), make_rasterizer("cpu")
    eyes = around(8) + around(4, 0.5) + around(4, -0.5)
    views = draw(head, head.v_template.numpy(), truth, eyes)
    texels = texel_map(rasterizer, head, SIZE)
    return (
        head,
        torch.as_tensor(truth).float() / 255,
        texels,
        bake(rasterizer, head, head.v_template[None], views, texels),
    )


def test_a_known_texture_comes_back(toy_bake) -> None:
    head, truth, texels, baked = toy_bake
    clear = clear_of_the_seam(head, texels)
    seen = (baked.weight > 0.1) & clear
    assert seen.sum() > 0.9 * clear.sum()
    error = (baked.color - truth).abs().amax(-1)[seen]
    assert error.median() < 0.006 and error.quantile(0.95) < 0.03


def test_a_shifted_head_bakes_another_texture(toy_bake) -> None:
    """The error above measures alignment: 3 mm of misplacement shows."""
    head, truth, texels, baked = toy_bake
    views = draw(head, head.v_template.numpy(), smooth_texture(SIZE), around(8))
    moved = bake(make_rasterizer("cpu"), head, head.v_template[None] + torch.tensor([0.0, 0.003, 0.0]), views, texels)
    seen = (baked.weight > 0.1) & (moved.weight > 0.1) & clear_of_the_seam(head, texels)
    before, after = ((b.color - truth).abs().amax(-1)[seen].median() for b in (baked, moved))
    assert after > 2 * before


def test_occluded_texels_take_no_colour_from_what_is_in_front() -> None:
    head, rasterizer = plates(), make_rasterizer("cpu")
    texture = np.zeros((SIZE, SIZE, 3), np.uint8)
    texture[:, : SIZE // 2] = (255, 0, 0)  # the small plate in front is red, the one behind blue
    texture[:, SIZE // 2 :] = (0, 0, 255)
    texels = texel_map(rasterizer, head, SIZE)
    place = texels.interpolate(head.v_template, head.faces)
    behind, across = texels.face >= 2, place[..., :2].abs().amax(-1)
    front_only = bake(
        rasterizer, head, head.v_template[None], draw(head, head.v_template.numpy(), texture, [(0.0, 0.0, 0.9)]), texels
    )
    shadow, pixel = 0.03 * 0.9 / 0.84, 0.9 * 2 * np.tan(np.radians(9)) / 192
    assert (front_only.weight[behind & (across < shadow - pixel)] == 0).all()
    lit = behind & (across > shadow + 2 * pixel) & (across < 0.08 - 3 * pixel)
    assert (front_only.weight[lit] > 0).all()
    # a second camera that looks past the small plate fills most of the shadow, in the right colour
    eyes = [(0.0, 0.0, 0.9), (0.6, 0.0, 0.67), (-0.6, 0.0, 0.67)]
    both = bake(rasterizer, head, head.v_template[None], draw(head, head.v_template.numpy(), texture, eyes), texels)
    filled = behind & (across < shadow - pixel) & (both.weight > 0)
    assert filled.sum() > 0.5 * (behind & (across < shadow - pixel)).sum()
    wrong = both.color[behind & (both.weight > 0)][:, 0]
    assert wrong.quantile(0.99) < 0.01 and wrong.max() < 0.1, "no red on the plate behind"
    # a pixel at a rim shows a little of both plates
    small = (texels.face >= 0) & (texels.face < 2) & (across < 0.03 - 1.5 * pixel)
    assert (both.weight[small] > 0).all() and both.color[small][:, 2].max() < 0.02, "no blue on the plate in front"


def test_back_faces_and_background_give_no_colour() -> None:
    head, rasterizer = plates(), make_rasterizer("cpu")
    texels = texel_map(rasterizer, head, SIZE)
    texture = np.full((SIZE, SIZE, 3), 40, np.uint8)
    behind = draw(head, head.v_template.numpy(), texture, [(0.0, 0.0, -0.9)])
    assert bake(rasterizer, head, head.v_template[None], behind, texels).weight.max() == 0
    # a head that is larger than what the pictures show takes nothing from the white background
    views = draw(head, 0.7 * head.v_template.numpy(), texture, [(0.0, 0.0, 0.9)])
    baked = bake(rasterizer, head, head.v_template[None], views, texels)
    assert 0 < (baked.weight > 0).sum() < 0.9 * texels.covered.sum()
    assert baked.color[baked.weight > 0].max() < 40 / 255 + 0.02


def test_complete_leaves_no_hole_and_keeps_what_was_seen(toy_bake) -> None:
    head, _, texels, baked = toy_bake
    hidden = torch.zeros_like(texels.covered)
    hidden[40:70, 40:70] = True
    color = torch.where(hidden[..., None], torch.full_like(baked.color, torch.nan), baked.color)
    weight = torch.where(hidden, torch.zeros_like(baked.weight), baked.weight)
    filled = complete(Bake(color.nan_to_num(0.0), weight), head, texels)
    assert torch.isfinite(filled).all() and filled.min() >= 0 and filled.max() <= 1
    seen = (weight > 1e-3) & texels.covered
    torch.testing.assert_close(filled[seen], baked.color[seen])
    assert filled[hidden & texels.covered].min() > 0.05, "not left black"


def test_complete_takes_the_model_texture_in_the_tone_around(toy_bake) -> None:
    head, truth, texels, baked = toy_bake
    hidden = torch.zeros_like(texels.covered)
    hidden[50:66, 50:66] = True
    weight = torch.where(hidden, torch.zeros_like(baked.weight), baked.weight)
    # the model's own texture is the true one, darker by 0.2: what is filled in must come back to the true tone
    head.texture = (255 * (truth - 0.2).clamp(0, 1)).round().byte().numpy()
    try:
        filled = complete(Bake(baked.color, weight), head, texels)
    finally:
        head.texture = None
    inside = hidden & clear_of_the_seam(head, texels)
    assert (filled - truth)[inside].abs().mean() < 0.05


def test_complete_of_nothing_is_grey(toy_bake) -> None:
    head, _, texels, baked = toy_bake
    filled = complete(Bake(torch.zeros_like(baked.color), torch.zeros_like(baked.weight)), head, texels)
    assert filled.amin() == filled.amax() and 0.3 < filled[0, 0, 0] < 0.9


def test_blur_by_region_never_mixes_labels() -> None:
    labels = torch.full((SIZE, SIZE), -1, dtype=torch.long)
    labels[:, : SIZE // 2], labels[: SIZE // 2, SIZE // 2 :] = 1, 2
    generator = torch.Generator().manual_seed(0)
    noise = 0.2 * torch.rand(SIZE, SIZE, 3, generator=generator)
    color = noise.clone()
    color[labels == 2] += 0.7
    smooth = region_smoothed(color, torch.ones(SIZE, SIZE), labels, 6.0)
    assert smooth[labels == 1].max() < 0.2 and smooth[labels == 2].min() > 0.7
    torch.testing.assert_close(smooth[labels == -1], color[labels == -1])
    assert smooth[labels == 1].std() < 0.2 * color[labels == 1].std(), "detail is gone"
    torch.testing.assert_close(smooth[labels == 1].mean(0), color[labels == 1].mean(0), atol=0.01, rtol=0)


def test_blur_ignores_texels_that_were_not_seen() -> None:
    labels = torch.zeros(SIZE, SIZE, dtype=torch.long)
    weight, color = torch.ones(SIZE, SIZE), torch.full((SIZE, SIZE, 3), 0.3)
    weight[30:60, 30:60], color[30:60, 30:60] = 0.0, 1.0
    smooth = region_smoothed(color, weight, labels, 4.0)
    torch.testing.assert_close(smooth, torch.full_like(color, 0.3), atol=1e-4, rtol=0)
