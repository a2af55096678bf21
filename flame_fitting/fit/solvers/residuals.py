"""What the second-order solver measures: residuals that are linear in vertices, for correspondences that are held.

Each counts half of N mean_i w_i rho(|r_i|^2), in units of its standard deviation, where rho is Geman-McClure and N the
number of independent measurements that all together count for: residuals of neighbours are correlated, so their plain
number would drown the priors.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flame_fitting.fit.losses.robust import geman_mcclure, geman_mcclure_weight
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.surface import SurfaceCloud
from flame_fitting.fit.targets import LandmarkTarget, PixelTarget

LANDMARK_CUT = 4.0
"""Geman-McClure scale of landmarks, in standard deviations."""


class Quadratic(NamedTuple):
    """0.5 x^T H x + g^T x + cost around the current parameters: g is the slope of the robust cost, H that of the
    iteratively reweighted squares, which lies above it."""

    hessian: Float[Tensor, "P P"]
    gradient: Float[Tensor, " P"]
    cost: Float[Tensor, ""]

    def __add__(self, other: "Quadratic") -> "Quadratic":  # type: ignore[override]
        return Quadratic(self.hessian + other.hessian, self.gradient + other.gradient, self.cost + other.cost)


class Linear(NamedTuple):
    """Residuals around the current vertices."""

    residuals: Float[Tensor, "n k"]
    slopes: Float[Tensor, "n k 3"] | None
    """Their derivative by the points; None: the identity."""
    rows: Float[Tensor, "n k P"]
    """That by the unknowns."""
    weight: Float[Tensor, " n"]
    """Of their squares, 1 / m^2."""


class BiasQuadratic(NamedTuple):
    """Blocks of the biases in the system of one timestep: what each measurement adds to those of its bias."""

    bias: Int[Tensor, " n"]
    """Number of each."""
    alone: bool
    """Whether no two are the same."""
    own: Float[Tensor, "n 3 3"]
    cross: Float[Tensor, "n 3 P"]
    """With all other unknowns."""
    gradient: Float[Tensor, "n 3"]

    def add_to(self, whole: Float[Tensor, " B *rest"], part: Float[Tensor, " n *rest"]) -> None:
        """A part to that of all biases."""
        if self.alone:  # adding up row by row is slow
            whole[self.bias] += part
        else:
            whole.index_add_(0, self.bias, part)


@dataclass(frozen=True, eq=False)
class Measurements:
    """Residuals r_i = D_i p_i - o_i of points p_i that are means of vertices."""

    corners: Int[Tensor, "n m"]
    """Vertices of each point."""
    shares: Float[Tensor, "n m"]
    """Their weights."""
    offsets: Float[Tensor, "n k"]
    """m."""
    weight: Float[Tensor, " n"]
    """1 / m^2."""
    scale: Float[Tensor, " n"]
    """Geman-McClure scale, m."""
    directions: Float[Tensor, "n k 3"] | None = None
    """None: the identity."""
    scale_below: Float[Tensor, " n"] | None = None
    """Scale where the (one) residual is negative, if it differs."""
    bias: Int[Tensor, " n"] | None = None
    """Number of the bias that each point has; None: no point has one."""
    shift: Float[Tensor, "n 3"] | None = None
    """What the biases add to the points now, m."""
    lever: Float[Tensor, "n 3 Q"] | None = None
    """Derivative of that by some of the other unknowns; None: it does not move with them."""
    lever_columns: Int[Tensor, " Q"] | None = None
    """Which these are."""

    def points(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, "n 3"]:
        """m."""
        corners = vertices.index_select(0, self.corners.flatten()).reshape(*self.corners.shape, 3)
        points = (corners * self.shares[..., None]).sum(1)
        return points if self.shift is None else points + self.shift

    def residuals(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, "n k"]:
        """m."""
        points = self.points(vertices)
        if self.directions is not None:
            points = (self.directions @ points[..., None])[..., 0]
        return points - self.offsets

    def slopes(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, "n k 3"] | None:
        """Derivative of the residuals by the points; None: the identity."""
        return self.directions

    def _around(self, vertices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Residuals and slopes, where both are wanted."""
        return self.residuals(vertices), self.slopes(vertices)

    def cost(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, ""]:
        """Half the weighted sum of rho."""
        return self._cost(self.residuals(vertices))

    def rows(self, vertices: Float[Tensor, "V 3"], jacobian: Float[Tensor, "V 3 P"]) -> Float[Tensor, "n k P"]:
        """Derivative of the residuals around the current vertices."""
        return self._rows(*self._around(vertices), vertices, jacobian)

    def _rows(self, residuals: Tensor, slopes: Tensor | None, vertices: Tensor, jacobian: Tensor) -> Tensor:
        moved = self._moved(jacobian)
        return moved if slopes is None else slopes @ moved

    def _moved(self, jacobian: Tensor) -> Tensor:
        """(n, 3, P) derivative of the points."""
        # index_select: its slope adds rows up faster than that of an index
        moved = jacobian.index_select(0, self.corners[:, 0]).mul_(self.shares[:, 0, None, None])
        for k in range(1, self.corners.shape[1]):
            moved += jacobian.index_select(0, self.corners[:, k]) * self.shares[:, k, None, None]
        if self.lever is not None:
            moved[..., self.lever_columns] += self.lever
        return moved

    def _cost(self, residuals: Tensor) -> Tensor:
        rho = geman_mcclure(residuals.square().sum(-1), self._scale(residuals))
        return 0.5 * (self.weight * rho).sum()

    def robust_weight(self, residuals: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """1 / m^2: what the squares of the residuals are weighted by."""
        return self.weight * geman_mcclure_weight(residuals.norm(dim=-1), self._scale(residuals))

    def linear(self, vertices: Float[Tensor, "V 3"], jacobian: Float[Tensor, "V 3 P"]) -> "Linear":
        """Around the current vertices, weighted as iteratively reweighted least squares weigh them."""
        residuals, slopes = self._around(vertices)
        rows = self._rows(residuals, slopes, vertices, jacobian)
        return Linear(residuals, slopes, rows, self.robust_weight(residuals))

    def quadratic(
        self, vertices: Float[Tensor, "V 3"], jacobian: Float[Tensor, "V 3 P"], linear: "Linear | None" = None
    ) -> Quadratic:
        """The same around the current vertices; `linear` is that of these, where the caller has it."""
        residuals, _, rows, weight = linear or self.linear(vertices, jacobian)
        flat = rows.flatten(0, 1)
        weighted = (rows * weight[:, None, None]).flatten(0, 1)
        return Quadratic(weighted.T @ flat, weighted.T @ residuals.flatten(), self._cost(residuals))

    def with_biases(self, linear: "Linear", turns: Float[Tensor, "B 3 3"]) -> "BiasQuadratic | None":
        """What `quadratic` lacks of the biases, which move points along the columns of their `turns`; None without."""
        if self.bias is None:
            return None
        residuals, slopes, rows, weight = linear
        turn = turns[self.bias]
        moved = turn if slopes is None else slopes @ turn
        weighted = (moved * weight[:, None, None]).mT
        alone = len(torch.unique(self.bias)) == len(self.bias)
        return BiasQuadratic(
            self.bias, alone, weighted @ moved, weighted @ rows, (weighted @ residuals[..., None])[..., 0]
        )

    def at(self, parameters: FitParameters, biases: Float[Tensor, "B 3"] | None = None) -> "Measurements":
        """The same through the cameras of these parameters, the points shifted by `biases` (reference frame, m)."""
        if self.bias is None or biases is None:
            return self
        return replace(self, shift=biases[self.bias])

    def carried(self, levers: Float[Tensor, "B 3 Q"], columns: Int[Tensor, " Q"]) -> "Measurements":
        """The same, where the shifts of all biases move by `levers` with the unknowns `columns`."""
        return self if self.bias is None else replace(self, lever=levers[self.bias], lever_columns=columns)

    def of_points(self, number: Int[Tensor, " n"]) -> "Measurements":
        """The same where not vertices but their points are posed (`skin.Points`); `number` is that of each."""
        return replace(self, corners=number[:, None], shares=torch.ones_like(self.shares[:, :1]))

    def _scale(self, residuals: Tensor) -> Tensor:
        if self.scale_below is None:
            return self.scale
        return torch.where(residuals[:, 0] < 0, self.scale_below, self.scale)


@dataclass(frozen=True, eq=False, kw_only=True)
class Projections(Measurements):
    """Residuals in pictures, r_i = (s (x, y)_i / z_i - o_i / d_i) d_i: pixels' noise does not depend on the depth.

    o_i / d_i is the ray that was detected, s the factor of the focal length, and d_i the depth (m) at which the noise
    is stated.
    """

    camera: Float[Tensor, "n 3 4"]
    """From the reference frame."""
    depth: Float[Tensor, " n"]
    log_focal: Float[Tensor, ""]
    focal_column: int | None = None
    """Where log_focal is in the unknowns, if it moves."""

    def _in_cameras(self, vertices: Tensor) -> Tensor:
        found = (self.camera[..., :3] @ self.points(vertices)[..., None])[..., 0] + self.camera[..., 3]
        # what is behind the camera does not come over to its front
        return torch.cat([found[:, :2], found[:, 2:].clamp_min(0.05)], dim=1)

    def depths(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, " n"]:
        """m, of the points in their cameras."""
        return self._in_cameras(vertices)[:, 2]

    def through(self, parameters: FitParameters) -> "Projections":
        """The same by the focal length of these parameters, which is none of the unknowns that rows are of."""
        return replace(self, log_focal=parameters.log_focal[0], focal_column=None)

    def residuals(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, "n k"]:
        """m at the stated depth."""
        return self._projected(self._in_cameras(vertices)) - self.offsets

    def slopes(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, "n k 3"]:
        """Derivative of the residuals by the points."""
        return self._around(vertices)[1]

    def _around(self, vertices: Tensor) -> tuple[Tensor, Tensor]:
        seen = self._in_cameras(vertices)
        projected, turn = self._projected(seen), self.camera[..., :3]
        factor = (self.log_focal.exp() * self.depth / seen[:, 2])[:, None, None]
        slopes = factor * turn[:, :2] - (projected / seen[:, 2:])[..., None] * turn[:, 2:]
        return projected - self.offsets, slopes

    def _projected(self, seen: Tensor) -> Tensor:
        return (self.log_focal.exp() * self.depth / seen[:, 2])[:, None] * seen[:, :2]

    def _rows(self, residuals: Tensor, slopes: Tensor | None, vertices: Tensor, jacobian: Tensor) -> Tensor:
        out = super()._rows(residuals, slopes, vertices, jacobian)
        if self.focal_column is not None:
            out[..., self.focal_column] = residuals + self.offsets
        return out

    def at(self, parameters: FitParameters, biases: Float[Tensor, "B 3"] | None = None) -> "Measurements":
        """The same through the cameras of these parameters, the points shifted by `biases` (reference frame, m)."""
        return replace(super().at(parameters, biases), log_focal=parameters.log_focal[0])  # type: ignore[call-arg]


def landmarks_in_space(
    target: LandmarkTarget, count: float, cut: float, bias: Int[Tensor, " n"] | None = None
) -> Measurements:
    """3D landmarks that count for `count`; `cut` is the robust scale in standard deviations."""
    weight = target.weight / target.sigma.square() * (count / max(len(target.points), 1))
    return Measurements(target.corners, target.barycentric, target.points, weight, cut * target.sigma, bias=bias)


def landmarks_in_pictures(
    target: PixelTarget, share: float, cut: float, bias: Int[Tensor, " n"] | None = None
) -> Measurements:
    """Landmarks that only have pixels: the distance across the ray at the point's depth, m.

    `share` is what one such landmark counts for, as a 3D one does.
    """
    rotation, offset = target.camera[:, :, :3], target.camera[:, :, 3]
    # x - z * ray: the reprojection error in metres, linear in the point
    directions = rotation[:, :2] - target.rays[..., None] * rotation[:, 2:]
    offsets = target.rays * offset[:, 2:] - offset[:, :2]
    weight = share * target.weight / target.sigma**2
    scale = torch.full_like(target.weight, cut * target.sigma)
    return Measurements(target.corners, target.barycentric, offsets, weight, scale, directions, bias=bias)


def projected_landmarks(
    target: PixelTarget,
    share: float,
    cut: float,
    log_focal: Tensor,
    focal_column: int | None,
    bias: Int[Tensor, " n"] | None = None,
) -> Projections:
    """Landmarks of heads that are seen from one side: nothing but pictures tells their depth.

    The noise is stated at the depth of the reference frame's origin; `share` is what one such landmark counts for.
    """
    depth = target.camera[:, 2, 3].clamp_min(0.05)
    weight = share * target.weight / target.sigma**2
    return Projections(
        corners=target.corners,
        shares=target.barycentric,
        offsets=target.rays * depth[:, None],
        weight=weight,
        scale=torch.full_like(weight, cut * target.sigma),
        camera=target.camera,
        depth=depth,
        log_focal=log_focal,
        focal_column=focal_column,
        bias=bias,
    )


def surface_distances(
    vertices: Float[Tensor, "V 3"],
    normals: Float[Tensor, "V 3"],
    cloud: SurfaceCloud,
    weights: SurfaceWeights,
    count: float,
    sigma: float,
    cut: float,
) -> Measurements:
    """Model to avatar, point to plane (Chen and Medioni 1992). `cut` (m) is the robust scale."""
    active = weights.active
    index, found = cloud.closest(vertices[active], normals[active], max_distance=max(4 * cut, 0.01))
    chosen, index = active[found], index[found]
    points, planes = cloud.tensors(vertices)
    points, planes = points[index], planes[index]
    total = weights.vertex[active].sum().clamp_min(1e-12)
    variance = sigma**2 + cloud.variance(index, vertices)
    # residuals are negative where the avatar's surface lies outside the model
    return Measurements(
        corners=chosen[:, None],
        shares=torch.ones_like(points[:, :1]),
        offsets=(planes * points).sum(-1, keepdim=True),
        weight=weights.vertex[chosen] * (count / (variance * total)),
        scale=torch.full_like(points[:, 0], cut),
        directions=planes[:, None],
        scale_below=cut * weights.outside_cut[chosen],
    )


def surface_distances_back(
    vertices: Float[Tensor, "V 3"],
    normals: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    cloud: SurfaceCloud,
    sample: np.ndarray,
    weights: SurfaceWeights,
    count: float,
    sigma: float,
    cut: float,
) -> Measurements:
    """Avatar to model: a sample of the avatar's points, each against the nearest triangle centre's plane."""
    from scipy.spatial import cKDTree

    active = weights.active_faces
    corners = faces[active]
    centres = vertices[corners].mean(1)
    facing = torch.nn.functional.normalize(normals[corners].mean(1), dim=-1)
    rows = torch.as_tensor(sample, device=vertices.device)
    points, planes = (values[rows] for values in cloud.tensors(vertices))
    distance, nearest = cKDTree(centres.detach().cpu().numpy()).query(
        cloud.points[sample], distance_upper_bound=max(4 * cut, 0.01), workers=-1
    )
    found = torch.as_tensor(np.isfinite(distance), device=vertices.device)
    nearest_face = torch.as_tensor(np.where(np.isfinite(distance), nearest, 0), device=vertices.device)
    found &= (facing[nearest_face] * planes).sum(-1) > 0.5
    chosen, planes = nearest_face[found], planes[found]
    variance = sigma**2 + cloud.variance(rows[found], vertices)
    return Measurements(
        corners=corners[chosen],
        shares=torch.full_like(planes, 1 / 3),
        offsets=(planes * points[found]).sum(-1, keepdim=True),
        weight=weights.face[active[chosen]] * (count / (variance * max(len(chosen), 1))),
        scale=torch.full_like(planes[:, 0], cut),
        directions=planes[:, None],
        scale_below=cut * weights.outside_cut[corners[chosen]].mean(1),
    )
