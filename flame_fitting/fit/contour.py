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

REGIONS = ("face", "left_cheek", "right_cheek", "chin", "neck_upper", "neck_top")
"""Where the contour of the face can lie."""
APART_FROM = ("nose", "lips", "lips_tight", "lip_inside", "eyes", "eyelids", "eyeballs", "ears", "neck_lower")
REACH = 0.06
"""Largest distance of a detected point to the contour, halves of a picture's longer side."""
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
    """0 where no contour is near."""

    def copy_(self, other: "ContourMatch") -> None:
        """Takes another's values in place."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))


@torch.no_grad()
def find_contour(head: HeadModel, vertices: Float[Tensor, "V 3"], target: DetectionTarget) -> ContourMatch:
    """The nearest contour point of every detected point of the jaw line; `vertices` in the reference frame, m.

    The contour runs where the vertex normal turns from the camera: between the ends of an edge of which one looks to it
    and one does not. Its normal in the picture is the surface's. Waits for the device.
    """
    device = vertices.device
    jaw = torch.nonzero((target.ibug >= 0) & (target.ibug < JAWLINE))[:, 0]
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
    normals = vertex_normals(vertices[None].float(), faces)[0]
    places = _in_picture(vertices.float(), target)
    # a short way along the normal shows its direction in the picture
    ahead = _in_picture(vertices.float() + 0.001 * normals, target) - places
    inverse = torch.linalg.inv(target.clip.double())
    # the camera's centre is what clip space maps to (0, 0, c, 0)
    centre = inverse[:, :3, 2] / inverse[:, 3:, 2]
    for view in range(views):
        facing = ((centre[view].float() - vertices.float()) * normals).sum(-1)
        a, b = facing[edges[:, 0]], facing[edges[:, 1]]
        crossing = (a > 0) != (b > 0)
        chosen, share = edges[crossing], (a / (a - b))[crossing].clamp(0, 1)
        if not len(chosen):
            continue
        one, other = places[view, chosen[:, 0]], places[view, chosen[:, 1]]
        place = one + share[:, None] * (other - one)
        outward = ahead[view, chosen[:, 0]] + share[:, None] * (ahead[view, chosen[:, 1]] - ahead[view, chosen[:, 0]])
        outward = torch.nn.functional.normalize(outward, dim=-1)
        middle = places[view, head.region_mask("face")].mean(0)
        is_outer = ((place - middle) * outward).sum(-1) > 0
        apart = points[view][:, None] - place
        distance = apart.norm(dim=-1) + torch.where(is_outer, 0.0, 1e3)
        nearest = distance.argmin(1)
        out.first[view], out.second[view] = chosen[nearest].unbind(1)
        out.share[view], out.normal[view] = share[nearest], outward[nearest]
        near = distance.gather(1, nearest[:, None])[:, 0] < REACH
        out.weight[view] = torch.where(near, weight[view], 0.0)
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
        clipped = clip_positions(corners, target.clip)
        ends.append(clipped[..., :2] / clipped[..., 3:].clamp_min(1e-6) * target.aspect)
    place = ends[0] + match.share[..., None] * (ends[1] - ends[0])
    across = ((place - match.point) * match.normal).sum(-1) / scale
    return (match.weight * geman_mcclure(across.square(), 1.0)).mean()


def _in_picture(points: Tensor, target: DetectionTarget) -> Tensor:
    clipped = clip_positions(points[None], target.clip)
    return clipped[..., :2] / clipped[..., 3:].clamp_min(1e-6) * target.aspect
