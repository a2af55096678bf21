"""Regularisers of offsets: small, smooth, and rigid where a part moves as a whole."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flame_fitting.head.model import HeadModel


@dataclass(frozen=True, kw_only=True)
class OffsetWeights:
    """Balance and regions of the regularisers. Values are the options' (`WeightConfig`)."""

    l1: float
    """Mean absolute offset, per m."""
    laplacian: float
    """Mean squared length of the Laplacian of the offsets, per m^2."""
    rigid: float
    """Variance of the offsets inside each rigid region, per m^2."""
    l1_relaxed: float
    """Factor of `l1` in the regions `l1_relaxed_for`."""
    l1_relaxed_for: tuple[str, ...]
    """Regions."""
    laplacian_relaxed: float
    """Factor of `laplacian` in the regions `laplacian_relaxed_for`."""
    laplacian_relaxed_for: tuple[str, ...]
    """Regions."""
    rigid_for: tuple[str, ...]
    """Regions that may only shift."""
    by_edge_length: bool
    """Scale `laplacian` at each vertex by (6 mm / mean length of its edges)^2: bending per area, alike on any mesh."""
    blur_iter: int
    """How often the two factors are spread over the mesh: each vertex takes the mean of itself and its neighbours."""


REFERENCE_EDGE = 0.006
"""Metres: mean edge of head models."""


class OffsetRegulariser:
    """The loss of offsets o, m, of one timestep (V, 3) or the mean over several, side by side (V, 3 T):

        l1 * mean_(v, xyz) a_v |o|  +  laplacian * mean_v b_v |L o|_v^2  +  rigid * sum_regions mean_xyz var_v(o)

    L is the uniform Laplacian (a vertex minus the mean of its neighbours), sparse. Parts without edges to the skin
    (eyeballs, teeth) have their own neighbours. The variance is the mean squared distance from the region's mean.
    Regions that the head lacks are left out. Constants lie on the head's device in its precision; calls wait for
    nothing.
    """

    def __init__(self, head: HeadModel, weights: OffsetWeights) -> None:
        self.weights = weights
        template = head.v_template
        self.start, self.end, self.share = neighbours(head.faces, head.n_vertices)
        self.share = self.share.to(template)
        self.l1 = self._factors(head, weights.l1_relaxed, weights.l1_relaxed_for)
        """(V, 1)."""
        self.laplacian = self._factors(head, weights.laplacian_relaxed, weights.laplacian_relaxed_for)
        """(V, 1)."""
        if weights.by_edge_length:
            self.laplacian = self.laplacian * (REFERENCE_EDGE / self._edge_lengths(template)).square()
        regions = head.regions
        rigid = [regions[name] for name in weights.rigid_for if name in regions and len(regions[name])]
        self._rigid = torch.cat([*rigid, torch.zeros(0, dtype=torch.long, device=template.device)])
        sizes = torch.tensor([len(region) for region in rigid], dtype=torch.long, device=template.device)
        owner = torch.arange(len(rigid), device=template.device).repeat_interleave(sizes)
        belongs = (owner == torch.arange(len(rigid), device=template.device)[:, None]).to(template)
        self._belongs = belongs
        """(regions, n): which rows of `_rigid` a region has."""
        self._averages = belongs / belongs.sum(1, keepdim=True)
        self._rigid_share = self._averages.sum(0)[:, None] / 3

    def __call__(self, offset: Float[Tensor, "V A"]) -> Float[Tensor, ""]:
        """The weighted sum; differentiable."""
        weights, timesteps = self.weights, offset.shape[1] // 3
        loss = offset.new_zeros(())
        if weights.l1:
            loss = loss + weights.l1 * (self.l1 * offset.abs()).mean()
        if weights.laplacian:
            curved = difference_from_neighbours(offset, self.start, self.end, self.share)
            loss = loss + (3 * weights.laplacian) * (self.laplacian * curved.square()).mean()
        if weights.rigid and len(self._rigid):
            part = offset.index_select(0, self._rigid)
            # means by products with small matrices: sums by index would queue thousands of vertices for six numbers
            apart = part - self._belongs.T @ (self._averages @ part)
            loss = loss + (weights.rigid / timesteps) * (self._rigid_share * apart.square()).sum()
        return loss

    def _edge_lengths(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, "V 1"]:
        """Mean length of the edges at each vertex, at least a third of the reference's."""
        length = (vertices[self.start] - vertices[self.end]).norm(dim=-1, keepdim=True)
        total = torch.zeros_like(vertices[:, :1]).index_add_(0, self.start, length)
        return (self.share * total).clamp_min(REFERENCE_EDGE / 3)

    def _factors(self, head: HeadModel, relaxed: float, regions: tuple[str, ...]) -> Float[Tensor, "V 1"]:
        factor = torch.ones_like(head.v_template[:, :1]).masked_fill_(head.region_mask(*regions)[:, None], relaxed)
        own = 1 / (1 / self.share + 1)
        for _ in range(self.weights.blur_iter):
            apart = difference_from_neighbours(factor, self.start, self.end, self.share)
            factor = factor - (1 - own) * apart
        return factor


def neighbours(
    faces: Int[Tensor, "F 3"], count: int
) -> tuple[Int[Tensor, " E"], Int[Tensor, " E"], Float[Tensor, "V 1"]]:
    """Both directions of every edge of a mesh (from, to), and 1 / degree of every vertex.

    A vertex of no triangle is its own neighbour, so that it differs from none.
    """
    lone = torch.ones(count, dtype=torch.bool, device=faces.device).index_fill_(0, faces.reshape(-1), False)
    lone = torch.nonzero(lone).expand(-1, 2)
    pairs = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    pairs = torch.unique(torch.cat([pairs, pairs.flip(1), lone]), dim=0)
    degree = torch.bincount(pairs[:, 0], minlength=count).float()
    return pairs[:, 0].contiguous(), pairs[:, 1].contiguous(), degree.reciprocal()[:, None]


def difference_from_neighbours(
    values: Float[Tensor, "V A"], start: Int[Tensor, " E"], end: Int[Tensor, " E"], share: Float[Tensor, "V 1"]
) -> Float[Tensor, "V A"]:
    """Uniform Laplacian: each vertex minus the mean of its `neighbours`."""
    total = torch.zeros_like(values).index_add(0, start, values.index_select(0, end))
    return values - share * total


def capped(offset: Float[Tensor, "*T V 3"], caps: Float[Tensor, " V"]) -> Float[Tensor, "*T V 3"]:
    """Offsets moved back onto a ball around 0 of each vertex's radius (m), where they lie outside of it."""
    size = offset.norm(dim=-1, keepdim=True)
    return offset * (caps[:, None] / size.clamp_min(1e-12)).clamp_max(1.0)
