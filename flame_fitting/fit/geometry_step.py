"""The head model and every loss that looks at vertices and parameters alone, as one function of the parameters.

What changes between steps (correspondences) lives in buffers of constant shape that are written in place, so that a
CUDA graph can hold all of it.
"""

import copy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flame_fitting.fit.losses.robust import geman_mcclure
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.parametric import JAW_SHUT, PriorWeights
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.views import ViewSet
from flame_fitting.head.model import HeadModel
from flame_fitting.render.mesh import clip_positions
from flame_fitting.render.shading import vertex_normals
from flame_fitting.render.winding import front_faces


@dataclass(frozen=True)
class GeometryWeights:
    """Balance of the terms without pictures; each is a mean."""

    landmark: float = 1.0
    """Landmarks, in squared standard deviations."""
    surface: float = 30.0
    """Point-to-plane distance to the avatar, in squared millimetres."""
    prior: float = 0.02
    """Gaussian priors of shape, expression and joints, in squared standard deviations."""
    offset: float = 300.0
    """Mean absolute static offset, m."""
    offset_laplacian: float = 1e6
    """Mean squared Laplacian of the static offsets, m^2."""


class GeometryStep:
    """Clip-space vertices of all views, and the loss of all terms without pictures, of the moving parameters.

    `values` is the one leaf that an optimiser moves: all moving parameters in a row, each in units of its step size, so
    that a step size of 1 suits them all.
    """

    MOVABLE = (
        "placement",
        "shape",
        "expr",
        "rotation",
        "translation",
        "neck_pose",
        "jaw_pose",
        "eyes_pose",
        "static_offset",
    )

    def __init__(
        self,
        head: HeadModel,
        parameters: FitParameters,
        targets: list[FrameTarget],
        views: ViewSet,
        surface: SurfaceWeights,
        prior: PriorWeights,
        weights: GeometryWeights,
        rates: dict[str, float],
    ) -> None:
        """`rates` has the step size of every parameter; without one, or with 0, it stands still. All is float32."""
        self.head = copy.deepcopy(head).float()
        device = self.head.v_template.device
        self._fixed = parameters.to(torch.float32)
        start = {name: getattr(self._fixed, name).detach() for name in self.MOVABLE if rates.get(name)}
        start = {name: value for name, value in start.items() if value.numel()}
        self._shapes = {name: value.shape for name, value in start.items()}
        scales = [torch.full((value.numel(),), rates[name], device=device) for name, value in start.items()]
        self._scale = torch.cat([*scales, torch.zeros(0, device=device)])
        flat = torch.cat([*(value.reshape(-1) for value in start.values()), torch.zeros(0, device=device)])
        self.values = (flat / self._scale).requires_grad_()
        self._least = torch.full_like(self._scale, -torch.inf)
        """What a value may not fall below: a jaw does not close further than shut."""
        if "jaw_pose" in start:
            self.unpack(self._least)["jaw_pose"][:, 0] = JAW_SHUT / rates["jaw_pose"]
        self._targets, self._surface, self._weights, self._vergence = targets, surface, weights, prior.vergence
        self._faces = self.head.faces.int()
        self._clip, self._timestep = views.clip, views.timestep
        self._marks = [
            (
                target.landmarks.corners.reshape(-1),
                target.landmarks.barycentric.float(),
                target.landmarks.points.float(),
                (target.landmarks.weight / max(len(target.landmarks.points), 1)).float(),
                target.landmarks.sigma.float().square().reciprocal(),
            )
            for target in targets
        ]
        active = surface.active
        self._active = active
        zeros = torch.zeros(len(active), 3, device=device)
        # point, normal, weight divided by the sum of weights (0 where no point was found)
        self._planes = [(zeros.clone(), zeros.clone(), zeros[:, 0].clone()) for _ in targets]
        self._precision = self._precisions(prior)
        self._laplacian = _laplacian(head.faces, head.n_vertices) if "static_offset" in start else None

    def __call__(self) -> tuple[Float[Tensor, "B V 4"], Bool[Tensor, "B F"], Float[Tensor, ""]]:
        """Clip-space vertices, which faces face each camera, and the loss, at the current values."""
        now = replace(self._fixed, **self.moved(self.values))
        vertices = now.vertices(self.head)
        weights = self._weights
        loss = weights.prior * self._prior(now)
        for row, (corners, barycentric, points, share, precision) in enumerate(self._marks):
            if len(points) and weights.landmark:
                model = vertices[row].index_select(0, corners).reshape(-1, 3, 3)
                squared = ((model * barycentric[..., None]).sum(1) - points).square().sum(-1) * precision
                loss = loss + weights.landmark * (share * geman_mcclure(squared, 4.0)).sum()
            if self._targets[row].surface is not None and weights.surface:
                point, normal, share = self._planes[row]
                distance = 1000 * ((vertices[row].index_select(0, self._active) - point) * normal).sum(-1)
                loss = loss + weights.surface * (share * geman_mcclure(distance.square(), 3.0)).sum()
        if self._laplacian is not None:
            offset = now.static_offset[0]
            curved = _smoothed_difference(offset, *self._laplacian)
            loss = loss + weights.offset * offset.abs().mean() + weights.offset_laplacian * curved.square().mean()
        pos = self._project(vertices)
        return pos, front_faces(pos, self._faces), loss

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a row like `values`, in the shapes of the parameters."""
        pieces = flat.split([shape.numel() for shape in self._shapes.values()])
        return {name: piece.reshape(shape) for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)}

    def moved(self, values: Tensor) -> dict[str, Tensor]:
        """The moving parameters for a row of values."""
        return self.unpack(values * self._scale)

    @torch.no_grad()
    def keep_possible(self) -> None:
        """Brings values back that a step has taken where no head can be."""
        torch.maximum(self.values, self._least, out=self.values)

    def vertices(self) -> Float[Tensor, "T V 3"]:
        """Posed vertices in the reference frame, m."""
        return replace(self._fixed, **self.moved(self.values)).vertices(self.head)

    def positions(self) -> Float[Tensor, "B V 4"]:
        """Clip-space vertices of all views."""
        return self._project(self.vertices())

    def find_correspondences(self, vertices: Float[Tensor, "T V 3"]) -> None:
        """The avatar's closest points anew, for the surface term."""
        for row, target in enumerate(self._targets):
            if target.surface is None:
                continue
            normals = vertex_normals(vertices[row : row + 1], self.head.faces)[0]
            index, found = target.surface.closest(vertices[row][self._active], normals[self._active], 0.008)
            points, planes = target.surface.tensors(vertices)
            weight = torch.where(found, self._surface.vertex[self._active].float(), 0.0)
            point, normal, share = self._planes[row]
            point.copy_(points[index])
            normal.copy_(planes[index])
            share.copy_(weight / weight.sum().clamp_min(1e-12))

    def _project(self, vertices: Tensor) -> Tensor:
        points = vertices if len(vertices) == 1 else vertices.index_select(0, self._timestep)
        return clip_positions(points, self._clip).contiguous()

    def _precisions(self, prior: PriorWeights) -> Tensor:
        """Weight of each squared value in the Gaussian priors."""
        out = torch.zeros_like(self._scale)
        rows = self.unpack(out)
        sigmas = {"shape": prior.shape, "expr": prior.expr, "neck_pose": prior.neck, "eyes_pose": prior.eyes}
        for name, sigma in sigmas.items():
            if name in rows:
                rows[name] += sigma**-2
        if "jaw_pose" in rows:
            rows["jaw_pose"] += torch.tensor([1.0, 9.0, 9.0], device=out.device) * prior.jaw**-2
        return out * self._scale.square()

    def _prior(self, now: FitParameters) -> Tensor:
        loss = (self._precision * self.values.square()).sum()
        if "eyes_pose" in self._shapes:
            loss = loss + ((now.eyes_pose[:, :3] - now.eyes_pose[:, 3:]) / self._vergence).square().sum()
        return loss


def _laplacian(faces: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Both directions of every edge (from, to), and 1 / degree of every vertex (V, 1)."""
    pairs = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    pairs = torch.unique(torch.cat([pairs, pairs.flip(1)]), dim=0)
    degree = torch.bincount(pairs[:, 0], minlength=count).float().clamp_min(1.0)
    return pairs[:, 0].contiguous(), pairs[:, 1].contiguous(), degree.reciprocal()[:, None]


def _smoothed_difference(values: Tensor, start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Uniform Laplacian: each vertex (V, 3) minus the mean of its neighbours."""
    total = torch.zeros_like(values).index_add(0, start, values.index_select(0, end))
    return values - share * total
