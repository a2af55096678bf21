"""The head model and every loss that looks at vertices and parameters alone, as one function of the parameters.

On a GPU it is captured into a CUDA graph, forward and backward: hundreds of small kernels in one launch. What changes
between steps (correspondences) lives in buffers of constant shape that are written in place.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fit.losses.robust import geman_mcclure
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.parametric import PriorWeights
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.views import ViewSet
from flame_fitting.head.model import HeadModel
from flame_fitting.render.mesh import clip_positions
from flame_fitting.render.shading import vertex_normals


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
    """Clip-space vertices of all views, and the loss of all terms without pictures, of the moving parameters."""

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
        moving: dict[str, float],
        graphed: bool = True,
    ) -> None:
        """`moving` names the parameters that move; the rest stands still. Inside, everything is float32."""
        self.head = copy.deepcopy(head).float()
        device = self.head.v_template.device
        self._fixed = parameters.to(torch.float32)
        self.moving = {
            name: getattr(self._fixed, name).detach().clone().requires_grad_()
            for name in self.MOVABLE
            if name in moving and getattr(self._fixed, name).numel()
        }
        self._targets, self._surface, self._weights, self._prior_weights = targets, surface, weights, prior
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
        self._jaw = torch.tensor([1, 1 / 3, 1 / 3], device=device) * prior.jaw
        self._laplacian = _laplacian(head.faces, head.n_vertices) if "static_offset" in self.moving else None
        self._run: Callable[..., tuple[Tensor, Tensor]] = self._evaluate
        self._graphed = graphed and device.type == "cuda"

    def __call__(self) -> tuple[Float[Tensor, "B V 4"], Float[Tensor, ""]]:
        """Clip-space vertices and loss at the current parameters."""
        if self._graphed:
            # after the first correspondences: buffers and parameters are the graph's own memory from here on
            arguments = tuple(value.detach().clone().requires_grad_() for value in self.moving.values())
            self._run = torch.cuda.make_graphed_callables(self._evaluate, arguments)  # type: ignore[assignment]
            self._graphed = False
        return self._run(*self.moving.values())

    def vertices(self) -> Float[Tensor, "T V 3"]:
        """Posed vertices in the reference frame, m."""
        return replace(self._fixed, **self.moving).vertices(self.head)

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

    def _evaluate(self, *values: Tensor) -> tuple[Tensor, Tensor]:
        now = replace(self._fixed, **dict(zip(self.moving, values, strict=True)))
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
        return self._project(vertices), loss

    def _prior(self, now: FitParameters) -> Tensor:
        prior, eyes = self._prior_weights, now.eyes_pose
        return (
            (now.shape / prior.shape).square().sum()
            + (now.expr / prior.expr).square().sum()
            + (now.neck_pose / prior.neck).square().sum()
            + (now.jaw_pose / self._jaw).square().sum()
            + (eyes / prior.eyes).square().sum()
            + ((eyes[:, :3] - eyes[:, 3:]) / prior.vergence).square().sum()
        )


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
