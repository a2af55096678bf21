"""The jaw line as what it is in a picture: a part of the head's occluding contour, not a fixed set of points.

A detected point of the jaw line lies on the contour of cheek or jaw in its view. Which surface point that is changes
with the pose, so it is found anew from time to time, and only the distance across the contour counts.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flame_fitting.fit.losses.robust import geman_mcclure
from flame_fitting.fit.targets import DetectionTarget
from flame_fitting.head.model import HeadModel
from flame_fitting.render.mesh import clip_positions
from flame_fitting.render.shading import vertex_normals
from flame_fitting.render.winding import front_faces

REGIONS = ("face", "left_cheek", "right_cheek", "chin", "neck_upper", "neck_top")
"""Where the contour of the face can lie."""
APART_FROM = ("nose", "lips", "lips_tight", "lip_inside", "eyes", "eyelids", "eyeballs", "ears", "neck_lower")
REACH = 0.08
"""Largest distance of a detected point to the contour, halves of a picture's longer side."""
JAW_FACING = 0.25
"""Cosine between normal and view direction at which the lower jaw ends before the neck, where no contour does."""
ALIGNED = 0.6
"""Least cosine between the contour's normal in the picture and that of the detected jaw line."""
FRONTAL = 0.9
"""Cosine between the face's mean normal and the view direction from which that end is looked for."""
TURNED = 0.5
"""Difference between the mean cosines of the jaw line's sides from which one is the near side and left out."""
FACING = (0.45, 0.75)
"""Cosine at a landmark's own place on the head up to which it counts fully as contour, and from which not at all."""
JAWLINE = 17
"""iBUG-68 points of the jaw line."""


@dataclass(eq=False)
class ContourMatch:
    """Where P points of the jaw line lie on the contour of the head in B views."""

    first: Int[Tensor, "B P"]
    second: Int[Tensor, "B P"]
    """Vertices at the two ends of the edge that the contour crosses."""
    share: Float[Tensor, "B P"]
    """Where it crosses, 0 at the first and 1 at the second."""
    normal: Float[Tensor, "B P 2"]
    """Unit, out of the head, in the picture."""
    point: Float[Tensor, "B P 2"]
    """Detected, isotropic coordinates."""
    weight: Float[Tensor, "B P"]
    """Confidence; 0 where no contour fits."""

    def copy_(self, other: "ContourMatch") -> None:
        """Takes another's values in place."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))


@torch.no_grad()
def find_contour(head: HeadModel, vertices: Float[Tensor, "V 3"], target: DetectionTarget) -> ContourMatch:
    """The nearest contour point of every detected point of the jaw line; `vertices` in the reference frame, m.

    The contour runs where the vertex normal turns from the camera, between the ends of an edge of which one looks to it
    and one does not (Hertzmann and Zorin 2000, "Illustrating Smooth Surfaces"); in frontal views, under the chin, also
    where the normal is nearly across the ray, since there the lower jaw need not hide the neck. What lies behind other
    parts of the head does not count. Nor does the near side of a turned head, where the jaw line is no contour, or a
    point whose own place on the head looks to the camera. Waits for the device.
    """
    device = vertices.device
    jaw = torch.nonzero((target.ibug >= 0) & (target.ibug < JAWLINE))[:, 0]
    jaw = jaw[target.ibug[jaw].argsort()]
    points, weight = target.points[:, jaw], target.weight[:, jaw]
    views, count = points.shape[:2]
    out = ContourMatch(
        first=torch.zeros(views, count, dtype=torch.long, device=device),
        second=torch.zeros(views, count, dtype=torch.long, device=device),
        share=torch.zeros(views, count, device=device),
        normal=torch.zeros(views, count, 2, device=device),
        point=points.clone(),
        weight=torch.zeros(views, count, device=device),
    )
    allowed = head.region_mask(*REGIONS) & ~head.region_mask(*APART_FROM)
    faces = head.faces
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = torch.unique(edges.sort(dim=1).values, dim=0)
    edges = edges[allowed[edges].all(1)]
    if not len(edges) or not count:
        return out
    vertices = vertices.float()
    normals = vertex_normals(vertices[None], faces)[0]
    clipped = clip_positions(vertices[None], target.clip)
    places = target.in_picture(clipped)
    front = front_faces(clipped, faces.int())
    # a short way along the normal shows its direction in the picture
    ahead = target.in_picture(clip_positions((vertices + 0.001 * normals)[None], target.clip)) - places
    inverse = torch.linalg.inv(target.clip.double())
    # the camera's centre is what clip space maps to (0, 0, c, 0)
    centre = (inverse[:, :3, 2] / inverse[:, 3:, 2]).float()
    toward = torch.nn.functional.normalize(centre[:, None] - vertices, dim=-1)
    facing = (toward * normals).sum(-1)
    of_landmark = (facing[:, target.corners[jaw]] * target.barycentric[jaw].float()).sum(-1)
    weight = weight * ((FACING[1] - of_landmark) / (FACING[1] - FACING[0])).clamp(0, 1)
    weight = weight * _far_side(of_landmark, target.ibug[jaw])
    under_chin = _under_chin(head, edges)
    face = head.region_mask("face")
    straight = torch.nn.functional.cosine_similarity(normals[face].mean(0), toward[:, face].mean(1), dim=-1) > FRONTAL
    for view in range(views):
        found = weight[view] > 0
        if not found.any():
            continue
        expected = _line_normals(points[view], found)
        crossed = [_crossings(facing[view], edges, 0.0)]
        if straight[view]:
            crossed.append(_crossings(facing[view], edges[under_chin], JAW_FACING))
        chosen, share = torch.cat([pair[0] for pair in crossed]), torch.cat([pair[1] for pair in crossed])
        if not len(chosen):
            continue

        def between(values: Tensor, ends: Tensor = chosen, part: Tensor = share) -> Tensor:
            return values[ends[:, 0]] + part[:, None] * (values[ends[:, 1]] - values[ends[:, 0]])

        outward = torch.nn.functional.normalize(between(ahead[view]), dim=-1)
        place, depth = between(places[view]), between(clipped[view, :, 3:])[:, 0]
        apart = (points[view][:, None] - place).norm(dim=-1)
        fits = (apart < REACH) & (expected @ outward.T > ALIGNED) & found[:, None]
        near = fits.any(0)
        seen = torch.zeros_like(near)
        seen[near] = ~_hidden(place[near], depth[near], places[view], clipped[view, :, 3], faces[front[view]])
        apart = torch.where(fits & seen, apart, torch.inf)
        nearest = apart.argmin(1)
        out.first[view], out.second[view] = chosen[nearest].unbind(1)
        out.share[view], out.normal[view] = share[nearest], outward[nearest]
        hit = torch.isfinite(apart.gather(1, nearest[:, None])[:, 0])
        out.weight[view] = torch.where(hit, weight[view], 0.0)
    return out


def contour_loss(
    vertices: Float[Tensor, "V 3"], match: ContourMatch, target: DetectionTarget, scale: float = 0.02
) -> Float[Tensor, ""]:
    """Mean over all points of weight * rho(distance across the contour), Geman-McClure.

    In squares of `scale` (halves of a picture's longer side), so that a term counts for 1 at most.
    """
    ends = []
    for ids in (match.first, match.second):
        corners = vertices.index_select(0, ids.reshape(-1)).reshape(*ids.shape, 3)
        ends.append(target.in_picture(clip_positions(corners, target.clip)))
    place = ends[0] + match.share[..., None] * (ends[1] - ends[0])
    across = ((place - match.point) * match.normal).sum(-1) / scale
    return (match.weight * geman_mcclure(across.square(), 1.0)).sum() / max(match.weight.numel(), 1)


def _crossings(facing: Tensor, edges: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Edges (n, 2) across which `facing` (V,) passes a level, and how far (n,) from the first end to the second."""
    a, b = (facing - level)[edges].unbind(1)
    crossing = (a > 0) != (b > 0)
    share = (a / torch.where(crossing, a - b, 1.0)).clamp(0, 1)
    return edges[crossing], share[crossing]


def _far_side(facing: Tensor, number: Tensor) -> Tensor:
    """(B, P) 0 for points of the side of the jaw line that looks to the camera, in turned views, else 1.

    `facing` (B, P) cosines at the points' own places, `number` (P,) in the iBUG order, 8 the chin.
    """
    sides = [number < 8, number > 8]
    right, left = ((facing * side).sum(1) / side.sum().clamp_min(1) for side in sides)
    near = torch.stack([right - left > TURNED, left - right > TURNED])
    return (~(near[:, :, None] & torch.stack(sides)[:, None])).all(0).float()


def _under_chin(head: HeadModel, edges: Tensor) -> Tensor:
    """Bool (E,): edges below the middle of the chin's region, where jaw and neck meet. From the rest pose."""
    chin = head.regions.get("chin")
    if chin is None or not len(chin):
        return torch.zeros(len(edges), dtype=torch.bool, device=edges.device)
    height = head.v_template[:, 1]
    return (height < height[chin].mean())[edges].all(1)


def _line_normals(points: Tensor, found: Tensor) -> Tensor:
    """Unit outward normals (P, 2) of a jaw line from the subject's right to the left, from its neighbours found."""
    ids = torch.nonzero(found)[:, 0]
    out = torch.zeros_like(points)
    line = points[ids]
    if len(line) < 2:
        return out
    along = torch.cat([line[1:2] - line[:1], line[2:] - line[:-2], line[-1:] - line[-2:-1]])
    # down along the picture's left edge of the face, whose outside is on the left
    out[ids] = torch.nn.functional.normalize(torch.stack([-along[:, 1], along[:, 0]], dim=1), dim=1)
    return out


def _hidden(
    place: Tensor, depth: Tensor, places: Tensor, depths: Tensor, faces: Tensor, margin: float = 0.01
) -> Tensor:
    """Bool (n,): whether points of a picture (n, 2) lie more than a share `margin` of their depth (n,) behind a face.

    `places` (V, 2) and `depths` (V,) of the vertices; edge functions and 1 / depth are linear in the picture.
    """
    corners = torch.cat([places, torch.ones_like(places[:, :1])], dim=1)[faces]
    a, b, c = corners.unbind(1)
    lines = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)])
    area = (a * lines[0]).sum(-1)
    lines = lines / torch.where(area.abs() < 1e-14, torch.inf, area)[:, None]
    nearness = (lines / depths[faces].T[..., None]).sum(0)
    points = torch.cat([place, torch.ones_like(place[:, :1])], dim=1)
    inside = (points @ lines[0].T > 0) & (points @ lines[1].T > 0) & (points @ lines[2].T > 0)
    return (inside & (points @ nearness.T > (1 + margin) / depth[:, None])).any(1)
