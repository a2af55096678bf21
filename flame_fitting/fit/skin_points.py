"""Points of the skin, each the same one in many pictures, at a fraction of a pixel.

A landmark is where a detector means it to be, to a few pixels each time anew. What `feature_tracks` follows is one spot
of the skin. A fit that is right to a few pixels says how the skin around it looks from elsewhere: a patch of the anchor
picture, bent as the head's surface bends there, is brought onto each picture (Lucas and Kanade 1981; light that falls
otherwise is taken out as a plane over the patch). The spots lie where the anchor's pixels meet the head, and what the
surface is off by there is an unknown (`solvers.biases`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from torch import Tensor

from flame_fitting.fit.feature_tracks import FeatureTracks
from flame_fitting.head.model import HeadModel
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.mesh import clip_positions

WITHOUT = (
    *("lips", "lip_inside", "teeth", "eyes", "eyelids", "eyeballs", "eye_sockets"),
    *("hair", "scalp", "boundary", "neck_lower"),
)
"""Regions of the face without points: what moves there is not the mesh, or is not where it is."""
_SIDE = 15
"""Samples along a patch's edge."""
_SPACING = 1.0
"""px between them in the anchor."""
_FACING = 0.5
"""Cosine to the camera from which on skin is looked at."""
_DEEP = 0.02
"""m: a patch with more relief than that is no skin of one place."""
_ALIKE = 0.8
"""Correlation with the anchor's patch from which on a spot is found."""
_NEAR = 3.0
"""px: a patch is brought no farther than that from where it was followed to."""
_STEPS = 8
_BLUR = 0.8
"""px, before slopes are taken."""
_UNSURE = 0.25
"""px: standard deviation by the picture's noise and texture, from which on a place is not told."""
_LEAST = 5
"""Pictures that a point is found in, at least."""
_CHUNK = 32
"""Pictures that are looked at together."""


@dataclass(frozen=True, eq=False)
class Shown:
    """What one camera shows of a head over time."""

    grey: UInt8[ndarray, "T H W"]
    K: Float[Tensor, "T 3 3"]
    """px."""
    camera: Float[Tensor, "T 4 4"]
    """From the frame of the vertices."""
    clip: Float[Tensor, "T 4 4"]
    """The same to clip space, float32."""
    vertices: Float[Tensor, "T V 3"]
    """m."""


@dataclass(frozen=True, eq=False)
class SkinPoints:
    """N spots of the skin in T pictures."""

    corners: Int[Tensor, "N 3"]
    """Vertices of their triangles."""
    barycentric: Float[Tensor, "N 3"]
    place: Float[Tensor, "T N 2"]
    """px, NaN where a spot is not found."""
    sigma: Float[Tensor, "T N"]
    """Standard deviation of it along each axis, px, by the picture's noise and texture alone."""

    @property
    def found(self) -> Bool[Tensor, "T N"]:
        """Where the spots are told."""
        return torch.isfinite(self.place[..., 0])


def skin_of(head: HeadModel) -> Bool[Tensor, " F"]:
    """Triangles on which points are looked for."""
    without = [name for name in WITHOUT if name in head.regions]
    return (head.region_mask("face") & ~head.region_mask(*without))[head.faces].all(1)


def looked_at(
    rasterizer: Rasterizer, head: HeadModel, shown: Shown, rows: Sequence[int]
) -> dict[int, Bool[ndarray, "H W"]]:
    """Pixels of some pictures that show skin from not too far aside, away from its borders."""
    import cv2

    wanted = skin_of(head)
    out = {}
    for row in rows:
        triangle = _rasterized(rasterizer, head, shown, row)
        facing = _facing(shown.vertices[row], shown.camera[row], head.faces) > _FACING
        good = torch.where(triangle >= 0, (wanted & facing)[triangle.clamp_min(0)], False)
        out[row] = cv2.erode(good.cpu().numpy().astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return out


def on_the_skin(rasterizer: Rasterizer, head: HeadModel, shown: Shown, tracks: Sequence[FeatureTracks]) -> SkinPoints:
    """The tracks' points, told anew in every picture by the patches around them."""
    found = [_patches_of(rasterizer, head, shown, track) for track in tracks]
    places = [torch.full_like(one.followed, np.nan) for one in found]
    sigmas = [torch.full_like(one.followed[..., 0], np.nan) for one in found]
    for first in range(0, len(shown.grey), _CHUNK):
        rows = slice(first, first + _CHUNK)
        layers = _layers(shown.grey[rows], shown.vertices.device)
        for one, at, deviation in zip(found, places, sigmas, strict=True):
            if torch.isfinite(one.followed[rows]).any():
                at[rows], deviation[rows] = one.told(layers, shown, rows)
    like, count = shown.vertices, len(shown.grey)
    corners = torch.cat([head.faces[:0], *(one.corners[:, one.middle] for one in found)])
    barycentric = torch.cat([like.new_zeros(0, 3), *(one.barycentric[:, one.middle] for one in found)])
    place = torch.cat([like.new_zeros(count, 0, 2), *places], dim=1)
    sigma = torch.cat([like.new_zeros(count, 0), *sigmas], dim=1)
    often = torch.isfinite(sigma).sum(0) >= _LEAST
    return SkinPoints(corners[often], barycentric[often], place[:, often], sigma[:, often])


@dataclass(frozen=True, eq=False)
class _Patches:
    """The skin around N points of one anchor, S samples each."""

    corners: Int[Tensor, "N S 3"]
    barycentric: Float[Tensor, "N S 3"]
    template: Float[Tensor, "N S"]
    """What the anchor shows of it."""
    followed: Float[Tensor, "T N 2"]
    """px, where the points were followed to."""

    @property
    def middle(self) -> int:
        """The sample that is the point itself."""
        return self.corners.shape[1] // 2

    def told(
        self, layers: Float[Tensor, "t 3 H W"], shown: Shown, rows: slice
    ) -> tuple[Float[Tensor, "t N 2"], Float[Tensor, "t N"]]:
        """Places (px) and their deviations in some pictures; NaN where a point is not told."""
        followed, vertices, camera = self.followed[rows], shown.vertices[rows], shown.camera[rows]
        points = torch.einsum("tnskc,nsk->tnsc", vertices[:, self.corners], self.barycentric)
        seen = _projected(points.flatten(1, 2), shown.K[rows], camera).reshape(*points.shape[:3], 2)
        begin = seen - seen[:, :, self.middle, None] + torch.nan_to_num(followed)[:, :, None]
        shift, alike, spread = _brought_onto(layers, begin, self.template)
        facing = _facing(vertices, camera, self.corners[:, self.middle])
        told = torch.isfinite(followed[..., 0]) & (alike > _ALIKE) & (shift.norm(dim=-1) < _NEAR)
        told &= (facing > _FACING) & (spread < _UNSURE)
        return torch.where(told[..., None], followed + shift, torch.nan), torch.where(told, spread, torch.nan)


def _patches_of(rasterizer: Rasterizer, head: HeadModel, shown: Shown, track: FeatureTracks) -> _Patches:
    device, anchor = shown.vertices.device, track.anchor
    steps = (torch.arange(_SIDE, device=device) - _SIDE // 2) * _SPACING
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(-1, 2)
    samples = torch.as_tensor(track.start, device=device)[:, None] + grid
    corners, barycentric, depth, inside, face = _under(rasterizer, head, shown, anchor, samples)
    # a patch lies on one surface, and all of it is skin
    whole = (inside & skin_of(head)[face]).all(1) & (depth.amax(1) - depth.amin(1) < _DEEP)
    layers = _layers(shown.grey[anchor : anchor + 1], device)
    template = _sampled(layers, samples[None, whole])[0][0]
    return _Patches(corners[whole], barycentric[whole], template, torch.as_tensor(track.place, device=device)[:, whole])


def _brought_onto(
    layers: Float[Tensor, "T 3 H W"], begin: Float[Tensor, "T N S 2"], template: Float[Tensor, "N S"]
) -> tuple[Float[Tensor, "T N 2"], Float[Tensor, "T N"], Float[Tensor, "T N"]]:
    """Shifts (px) of patches that bring them onto the template, how alike they are then, and the shifts' deviations."""
    shift = torch.zeros_like(begin[:, :, 0])
    unit = torch.eye(2).to(begin)
    for _ in range(_STEPS):
        value, slope = _sampled(layers, begin + shift[:, :, None])
        system = slope.mT @ slope
        system = system + 1e-4 * unit * (1 + system.diagonal(dim1=-2, dim2=-1).mean(-1))[..., None, None]
        wanted = torch.linalg.solve(system, slope.mT @ (value - template)[..., None])[..., 0]
        shift = shift - wanted.clamp(-1.0, 1.0)
    value, slope = _sampled(layers, begin + shift[:, :, None])
    noise = (value - template).square().mean(-1).clamp_min(1e-4)
    least = torch.linalg.eigvalsh(slope.mT @ slope)[..., 0].clamp_min(1e-6)
    return shift, (value * template).mean(-1), (noise / least).sqrt()


def _layers(grey: UInt8[ndarray, "T H W"], device: torch.device) -> Float[Tensor, "T 3 H W"]:
    """Pictures, blurred a little, and their slopes along x and y per px."""
    import cv2

    smooth = torch.from_numpy(np.stack([cv2.GaussianBlur(one.astype(np.float32), (0, 0), _BLUR) for one in grey]))
    smooth = smooth.to(device)[:, None] / 255
    across = torch.nn.functional.pad(smooth, (1, 1, 1, 1), mode="replicate")
    slopes = [
        (across[..., 1:-1, 2:] - across[..., 1:-1, :-2]) / 2,
        (across[..., 2:, 1:-1] - across[..., :-2, 1:-1]) / 2,
    ]
    return torch.cat([smooth, *slopes], dim=1)


def _sampled(
    layers: Float[Tensor, "T 3 H W"], place: Float[Tensor, "T N S 2"]
) -> tuple[Float[Tensor, "T N S"], Float[Tensor, "T N S 2"]]:
    """Values of mean 0 and variance 1 in each patch, without what is linear over it, and their slopes per px."""
    height, width = layers.shape[2:]
    grid = 2 * place.float() / place.new_tensor([width, height]).float() - 1
    out = torch.nn.functional.grid_sample(layers, grid, padding_mode="border", align_corners=False).to(place)
    value = _without_plane(out[:, 0])
    spread = value.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-3)
    slope = _without_plane(out[:, 1:]).permute(0, 2, 3, 1)
    return value / spread, slope / spread[..., None]


def _without_plane(value: Float[Tensor, "*b S"]) -> Float[Tensor, "*b S"]:
    axis = torch.linspace(-1, 1, _SIDE).to(value)
    across = torch.meshgrid(axis, axis, indexing="xy")
    plane = torch.stack([torch.ones_like(across[0]), *across]).flatten(1)
    plane = plane / plane.norm(dim=1, keepdim=True)
    return value - (value @ plane.T) @ plane


def _under(
    rasterizer: Rasterizer, head: HeadModel, shown: Shown, row: int, pixels: Float[Tensor, "N S 2"]
) -> tuple[Int[Tensor, "N S 3"], Float[Tensor, "N S 3"], Float[Tensor, "N S"], Bool[Tensor, "N S"], Int[Tensor, "N S"]]:
    """Corners and barycentric coordinates of the surface under pixels, its depth (m), whether there is any, and its
    triangle.

    The triangle is that of the pixel's centre; a place a little beside it goes on in its plane.
    """
    height, width = shown.grey.shape[1:]
    triangle = _rasterized(rasterizer, head, shown, row)
    column, line = pixels[..., 0].floor().long(), pixels[..., 1].floor().long()
    inside = (column >= 0) & (column < width) & (line >= 0) & (line < height)
    face = torch.where(inside, triangle[line.clamp(0, height - 1), column.clamp(0, width - 1)], -1)
    corners = head.faces[face.clamp_min(0)]
    K, camera = shown.K[row], shown.camera[row]
    a, b, c = (shown.vertices[row] @ camera[:3, :3].T + camera[:3, 3])[corners].unbind(-2)
    ray = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1) @ torch.linalg.inv(K).T
    normal = torch.linalg.cross(b - a, c - a)
    along = (normal * ray).sum(-1)
    depth = (normal * a).sum(-1) / torch.where(along.abs() < 1e-12, 1e-12, along)
    point = ray * depth[..., None]
    size = normal.square().sum(-1).clamp_min(1e-18)
    second = (torch.linalg.cross(c - point, a - point) * normal).sum(-1) / size
    third = (torch.linalg.cross(a - point, b - point) * normal).sum(-1) / size
    barycentric = torch.stack([1 - second - third, second, third], dim=-1)
    return corners, barycentric, depth, (face >= 0) & (barycentric > -2).all(-1), face.clamp_min(0)


def _rasterized(rasterizer: Rasterizer, head: HeadModel, shown: Shown, row: int) -> Int[Tensor, "H W"]:
    """Triangle at each pixel of a picture, -1 where there is none."""
    height, width = shown.grey.shape[1:]
    pos = clip_positions(shown.vertices[row][None].float(), shown.clip[row][None])
    rast, _ = rasterizer.rasterize(pos, head.faces.int(), (height, width))
    return rast[0, ..., 3].long() - 1


def _projected(
    points: Float[Tensor, "T M 3"], K: Float[Tensor, "T 3 3"], camera: Float[Tensor, "T 4 4"]
) -> Float[Tensor, "T M 2"]:
    """px."""
    seen = (points @ camera[:, :3, :3].mT + camera[:, None, :3, 3]) @ K.mT
    return seen[..., :2] / seen[..., 2:]


def _facing(
    vertices: Float[Tensor, "*b V 3"], camera: Float[Tensor, "*b 4 4"], corners: Int[Tensor, "F 3"]
) -> Float[Tensor, "*b F"]:
    """Cosine of triangles to the way to the camera."""
    a, b, c = vertices[..., corners, :].unbind(-2)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
    eye = -(camera[..., :3, :3].mT @ camera[..., :3, 3:]).mT
    return (normal * torch.nn.functional.normalize(eye - (a + b + c) / 3, dim=-1)).sum(-1)
