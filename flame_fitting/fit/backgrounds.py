"""What lies behind the avatar in the pictures that a fit looks at.

Silhouettes pull through the contrast of the head's colours with the background's. Where the two are alike they pull
nowhere, or outwards, and offsets run away. With the alpha of the pictures and the colour that they were composited on
the background can be exchanged for colours that the avatar's outline does not have.
"""

import itertools

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn.functional import max_pool2d

_EMPTY = 0.02
"""Alpha below which a pixel shows the background alone; halos of mattes have a little more than 0."""


def contour_colors(rgba: Shaped[Tensor, "B H W 4"], number: int = 4096, band: float = 0.012) -> Float[Tensor, "n 3"]:
    """Colours of the avatar along its outlines, sRGB 0..1: at most about `number`, evenly from all views.

    They are taken from opaque pixels that lie within `band` (share of the picture's height, at least 2 px) of empty
    ones; where no view has any, from all that shows the avatar, and there are none where nothing does. Whole numbers
    are in 0..255. Waits for the device.
    """
    radius = max(2, round(band * rgba.shape[1]))
    share = max(1, number // max(len(rgba), 1))
    found: dict[bool, list[Tensor]] = {True: [], False: []}
    for picture in rgba:
        color, alpha = _unit(picture[..., :3]), _unit(picture[..., 3])
        beside = _near((alpha <= _EMPTY)[None], radius)[0]
        for is_outline, chosen in ((True, beside & (alpha > 0.99)), (False, alpha > 0.5)):
            inside = color[chosen]
            found[is_outline].append(inside[:: max(1, -(-len(inside) // share))])
    outline = torch.cat([*found[True], rgba.new_zeros((0, 3), dtype=torch.float32)])
    return outline if len(outline) else torch.cat([*found[False], outline])


def far_colors(contour: Float[Tensor, "n 3"], count: int) -> Float[Tensor, "count 3"]:
    """Background colours far from an outline's `contour_colors`, the best first, all different.

    Candidates have 0, 0.5 or 1 in each channel. Distances are what the photometric loss sees, the mean absolute
    difference over rgb; of a candidate the lowest but 5 % counts. Each further colour is the one that raises the sum of
    distances to all so far the most: what one has little contrast with has some with another.
    """
    palette = contour.new_tensor(list(itertools.product([0.0, 0.5, 1.0], repeat=3)))
    colors = contour if len(contour) else torch.full_like(palette[:1], 0.5)
    apart = (colors[:, None] - palette).abs().mean(-1)
    total, chosen = torch.zeros_like(apart[:, :1]), []
    taken = torch.zeros_like(apart[0])
    for _ in range(min(count, len(palette))):
        together = torch.quantile(total + apart, 0.05, dim=0)
        best = int((together + taken).argmax())
        chosen.append(best)
        taken[best] = -torch.inf
        total = total + apart[:, best : best + 1]
    return palette[chosen]


@torch.no_grad()
def recomposite(
    rgba: Shaped[Tensor, "B H W 4"],
    old: Float[Tensor, " 3"],
    new: Float[Tensor, " 3"],
    out: Float[Tensor, "B H W C"],
    pixels: int = 2**21,
) -> None:
    """Pictures over another background, rgb + (1 - alpha) (new - old) in 0..1, into the first three channels of `out`.

    Exact where pictures were composited on `old` in sRGB, reduced ones too. Whole numbers are in 0..255. `pixels` are
    worked on at once, so that no temporary is as large as all pictures. Waits for nothing.
    """
    change = (new - old).to(rgba.device).float()
    size = max(1, pixels // max(rgba.shape[1] * rgba.shape[2], 1))
    for start in range(0, len(rgba), size):
        part = slice(start, start + size)
        outside = 1 - _unit(rgba[part, ..., 3:])
        out[part, ..., :3] = torch.addcmul(_unit(rgba[part, ..., :3]), outside, change).clamp_(0.0, 1.0)


@torch.no_grad()
def outline_targets(alpha: Float[Tensor, "B H W"], band: int, ratio: float) -> Float[Tensor, "B H W"]:
    """The alpha that a silhouette loss of slope 1 - alpha is given, so that it also pulls the head out to the outline.

    It is alpha + ratio * alpha on pixels within `band` px of empty ones (in rows and columns), else alpha. Head outside
    the avatar costs 1 a pixel; avatar near its own outline that the head does not cover costs `ratio` a pixel. Deep
    inside nothing pulls: the head's outline lies there where hair or clothes are thicker than the band. Beyond the
    picture's border nothing is known, so it is no outline.
    """
    out = alpha.clone()
    for row in range(len(alpha)):
        beside = _near(alpha[row : row + 1] <= _EMPTY, band)
        out[row] += torch.where(beside[0], ratio * alpha[row], 0.0)
    return out


def _near(mask: Tensor, radius: int) -> Tensor:
    """(B, H, W) pixels within `radius` rows and columns of one of the mask."""
    grown = mask[:, None].float()
    grown = max_pool2d(grown, (2 * radius + 1, 1), stride=1, padding=(radius, 0))
    return max_pool2d(grown, (1, 2 * radius + 1), stride=1, padding=(0, radius))[:, 0] > 0


def _unit(values: Tensor) -> Tensor:
    """Float32 in 0..1."""
    return values.float() if values.is_floating_point() else values.float().mul_(1 / 255)
