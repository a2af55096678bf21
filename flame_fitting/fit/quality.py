"""How good a fit is while it runs: the numbers by which a stage is kept or rolled back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from flame_fitting.fit.folds import folded_triangles
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.pictures import Pictures
from flame_fitting.fit.region_weights import vertex_areas
from flame_fitting.fit.rendering import HeadRenderer
from flame_fitting.fit.solvers.residuals import projected_landmarks
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.texture import TexelMaps, bake, complete
from flame_fitting.head.model import HeadModel
from flame_fitting.maths.quantiles import weighted_quantiles
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.mesh import clip_positions
from flame_fitting.render.shading import vertex_normals

MEASURED_VIEWS = 8
"""Views of which `picture_error` is the mean."""
ONE_PERSON_MM = 0.25
"""Median distance of a moment's face to its avatar, with offsets that all moments share: 0.04 to 0.1 of one person, 0.4
of two."""
BETTER = 0.95
"""A stage that brings the picture error below this share of what it was has made the pictures agree better."""


@dataclass
class Quality:
    """Medians over all timesteps, head-space millimetres; NaN where there is nothing to measure."""

    landmark_mm: float
    """Of landmarks in space; where a head is seen from one side alone, across the rays at the head's depth."""
    face_mm: float
    """Face vertices to the avatar's visible surface, weighted by area."""
    face_p95_mm: float
    folded: int
    """Triangles of the face that the offsets turned over."""
    folded_lips: int = 0
    """The same of the lips, some of which lie inside the mouth, beside the face."""
    folded_eyelids: int = 0
    picture: float = np.nan
    """See `picture_error`; NaN where it was not measured."""

    def as_dict(self) -> dict[str, float]:
        """Plain values; without the picture error where it was not measured."""
        values = asdict(self)
        if np.isnan(self.picture):
            del values["picture"]
        return values


def in_words(summary: Mapping[str, float]) -> str:
    """What a stage's record has of it (`Quality.as_dict`), in a line for the user; medians."""
    names = (("face_mm", "face"), ("landmark_mm", "landmarks"))
    found = [f"{name} {summary[key]:.2f} mm" for key, name in names if np.isfinite(summary[key])]
    found += [f"pictures {summary['picture']:.3f}"] if "picture" in summary else []
    return ", ".join(found)


def measure(head: HeadModel, parameters: FitParameters, targets: list[FrameTarget]) -> Quality:
    """Landmark and surface distances of the current parameters."""
    posed = (vertices for some in parameters.batches() for vertices in some.vertices(head))
    landmark, surface, areas = [], [], []
    face = torch.nonzero(head.region_mask("face"))[:, 0]
    for vertices, target in zip(posed, targets, strict=True):
        for source in target.sources:
            if len(source.landmarks.points) or source.pixels is None:
                apart = source.landmarks.model_points(vertices) - source.landmarks.points
            else:  # seen from one side: across the rays, at the depth of the reference frame
                seen = projected_landmarks(source.pixels, 1.0, 1.0, parameters.log_focal[0], None)
                apart = seen.residuals(vertices)
            landmark.append(apart.norm(dim=-1).cpu().numpy())
        if target.surface is not None and len(face):
            normals = vertex_normals(vertices[None], head.faces)[0]
            index, found = target.surface.closest(vertices[face], normals[face], max_distance=0.03)
            points, planes = target.surface.tensors(vertices)
            distance = (planes[index] * (vertices[face] - points[index])).sum(-1).abs()
            surface.append(torch.where(found, distance, 0.03).cpu().numpy())
            areas.append(vertex_areas(vertices, head.faces)[face].cpu().numpy())
    turned = folded_triangles(head, parameters)
    folded = {
        name: int((turned & head.face_mask(region)).sum())
        for name, region in (("folded", "face"), ("folded_lips", "lips"), ("folded_eyelids", "eyelids"))
    }
    spread: tuple[float, ...] = (np.nan, np.nan)
    if surface:
        spread = tuple(weighted_quantiles(np.concatenate(surface), np.concatenate(areas), (0.5, 0.95)).tolist())
    return Quality(
        landmark_mm=1000 * float(np.median(np.concatenate(landmark))) if sum(map(len, landmark)) else np.nan,
        face_mm=1000 * float(spread[0]),
        face_p95_mm=1000 * float(spread[1]),
        **folded,
    )


def worsened(before: Quality, after: Quality) -> str | None:
    """What got worse by more than a stage may give up for another gain, in words; None if nothing did.

    Folded triangles do not count: they are repaired where they are.
    """
    # where pictures are all that there is and they agree better, landmarks may be what is wrong: noisy, or biased
    loose = 2.0 if after.picture < BETTER * before.picture else 1.0
    for name, label, relative, absolute in (
        ("landmark_mm", "landmarks", 1.5 * loose, 2.0 * loose),
        ("face_mm", "the face's distance to the avatar", 1.10, 0.05),
    ):
        old, new = getattr(before, name), getattr(after, name)
        if np.isfinite(old) and not new <= max(old * relative, old + absolute):
            return f"{label} went from {old:.2f} to {new:.2f} mm"
    if np.isfinite(before.picture) and not after.picture <= max(1.25 * before.picture, before.picture + 0.01):
        return f"the difference from the pictures went from {before.picture:.3f} to {after.picture:.3f}"
    return None


def different_persons(
    head: HeadModel, parameters: FitParameters, targets: list[FrameTarget], names: Sequence[str]
) -> str | None:
    """What speaks against several moments showing one person, in words: its offsets fit some of them badly.

    None where nothing does, and where it cannot be told: without a surface, or without offsets.
    """
    if not bool(parameters.static_offset.any()):
        return None
    apart = [measure(head, parameters.of_frames([t]), [target]).face_mm for t, target in enumerate(targets)]
    if not max((one for one in apart if np.isfinite(one)), default=0.0) > ONE_PERSON_MM:
        return None
    listed = ", ".join(f"{name} {one:.2f} mm" for name, one in zip(names, apart, strict=True) if np.isfinite(one))
    return (
        f"the captures seem to show different persons: one identity leaves faces {listed} from the avatar (median; up "
        f"to {ONE_PERSON_MM} is usual). Fit each by itself, without --same-identity."
    )


@torch.no_grad()
def picture_error(
    rasterizer: Rasterizer, head: HeadModel, vertices: Tensor, pictures: Pictures, texels: TexelMaps, size: int = 256
) -> float:
    """Mean difference (sRGB) of pictures from the head at `vertices` (V, 3) in the colours that it has in them.

    One measure for all stages: colours are baked anew from up to `MEASURED_VIEWS` of the views, so that it depends on
    no texture or light that a stage has or has not fitted yet; nothing is perturbed. Over the pixels of head and
    avatar together; behind the head is the pictures' own background, or where that is not known the picture itself.
    """
    count = len(pictures)
    rows = np.unique(np.linspace(0, count - 1, min(count, MEASURED_VIEWS)).round().astype(int))
    some = pictures.batch([int(row) for row in rows]).downsampled(max(pictures.resolution[0] // size, 1))
    maps = texels(2 * size)
    texture = complete(bake(rasterizer, head, vertices[None], some, maps), head, maps)
    shown = some.pictures()
    behind = shown[..., :3]
    if some.background is not None:
        behind = some.background.to(shown).expand(behind.shape)
    pos = clip_positions(vertices.float()[None], some.clip).contiguous()
    drawn = HeadRenderer(rasterizer, head).draw(pos, some.resolution, texture[None].float(), behind.contiguous())
    inside = torch.maximum(shown[..., 3], drawn.painted[..., 3])
    apart = (drawn.painted[..., :3] - shown[..., :3]).abs().mean(-1)
    return float((apart * inside).sum() / inside.sum().clamp_min(1.0))
