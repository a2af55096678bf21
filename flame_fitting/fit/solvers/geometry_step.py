"""The head model and every loss that looks at vertices and parameters alone, as one function of the parameters.

What changes between steps (correspondences) lives in buffers of constant shape that are written in place, so that a
CUDA graph can hold all of it.
"""

import copy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flame_fitting.fit.contour import ContourMatch, contour_loss, find_contour
from flame_fitting.fit.losses.landmarks import ClosurePairs, closure_loss, closure_pairs, projected_landmark_loss
from flame_fitting.fit.losses.offsets import capped
from flame_fitting.fit.losses.robust import geman_mcclure
from flame_fitting.fit.parameters import PARAMETERS, VERGENCE, FitParameters, Part
from flame_fitting.fit.region_weights import CAP, SurfaceWeights, by_region
from flame_fitting.fit.solvers.changing import Changing, within
from flame_fitting.fit.solvers.geometry_weights import GeometryWeights
from flame_fitting.fit.solvers.regularisers import OverTime, pose_loss
from flame_fitting.fit.solvers.size import size_slopes
from flame_fitting.fit.solvers.zoom import Zoom
from flame_fitting.fit.targets import FrameTarget, SourceTarget
from flame_fitting.fit.views import ViewSet
from flame_fitting.fit.weight_config import PriorConfig
from flame_fitting.head.model import HeadModel
from flame_fitting.render.mesh import clip_positions
from flame_fitting.render.shading import vertex_normals
from flame_fitting.render.winding import front_faces

BALANCED = 8
"""Pictures of a capture over time that priors are balanced against as they are."""


@dataclass(eq=False)
class Projected:
    """What the head model gives at the current values."""

    pos: Float[Tensor, "B V 4"]
    """Clip-space vertices of all views."""
    front: Bool[Tensor, "B F"]
    """Which faces face each camera."""
    vertices: Float[Tensor, "T V 3"]
    """Reference frame, m; as they are, not as `Zoom` shows them."""
    loss: Float[Tensor, ""]
    """All terms without pictures."""


@dataclass(eq=False)
class _Marks:
    """Landmarks of one source at one timestep, float32."""

    corners: Tensor
    """(3 n,) vertex ids."""
    barycentric: Tensor
    """(n, 3)."""
    points: Tensor
    """(n, 3) m."""
    weight: Tensor
    """(n,) sum 1."""
    precision: Tensor
    """(n,) 1 / m^2."""
    pairs: ClosurePairs | None
    """Landmarks across an opening, where openings count."""
    contour: ContourMatch | None = None
    """Where the jaw line lies on the head's contour; found from time to time."""

    @classmethod
    def of(cls, source: SourceTarget, closure: float) -> "_Marks":
        marks = source.landmarks
        return cls(
            marks.corners.reshape(-1),
            marks.barycentric.float(),
            marks.points.float(),
            (marks.weight / max(len(marks.points), 1)).float(),
            marks.sigma.float().square().reciprocal(),
            closure_pairs(marks, marks.scheme) if closure else None,
        )


class GeometryStep:
    """Clip-space vertices of all views, and the loss of all terms without pictures, of the moving parameters.

    `values` is the one leaf that an optimiser moves: the changes of all moving parameters in a row, each in units of
    its step size, so that a step size of 1 suits them all.
    """

    def __init__(
        self,
        head: HeadModel,
        parameters: FitParameters,
        targets: list[FrameTarget],
        views: ViewSet,
        surface: SurfaceWeights,
        prior: PriorConfig,
        weights: GeometryWeights,
        rates: dict[str, float],
        components: dict[str, int] | None = None,
        before: FitParameters | None = None,
    ) -> None:
        """`rates` has the step size of every parameter; without one, or with 0, it stands still. All is float32.

        Of `shape` and `expr` only so many coefficients move as `components` says, from the first on. `before` is the
        timestep before the first one, to which changes count, where it is none of these.
        """
        self.head = copy.deepcopy(head).float()
        device = self.head.v_template.device
        self._fixed = parameters.to(torch.float32)
        steps = {p.name: {part: rates.get(part.name, rates.get(p.name, 0.0)) for part in p.parts} for p in PARAMETERS}
        moving = {name: getattr(self._fixed, name).detach() for name, parts in steps.items() if any(parts.values())}
        start = {name: value for name, value in moving.items() if value.numel()}
        self._shapes = {name: value.shape for name, value in start.items()}
        self._parts: list[tuple[str, Part]] = [(name, part) for name in start for part in steps[name]]
        empty = torch.zeros(0, device=device)
        self._scale = torch.zeros(sum(value.numel() for value in start.values()), device=device)
        for name, part in self._parts:
            self.unpack(self._scale)[name][..., part.span] = steps[name][part]
        self._components = components or {}
        rows = self.unpack(self._scale)
        for name in self._components.keys() & rows.keys():
            rows[name][..., self._components[name] :] = 0.0
        self._start = torch.cat([*(value.reshape(-1) for value in start.values()), empty])
        self.values = torch.zeros_like(self._start).requires_grad_()
        self._least, self._most = (torch.full_like(self._scale, sign * torch.inf) for sign in (-1, 1))
        """Between which a value may lie: a jaw does not close further than shut."""
        for name, part in self._parts:
            for bound, given in ((self._least, part.least), (self._most, part.most)):
                if given:
                    at = (torch.tensor(given, device=device) - start[name][..., part.span]) / steps[name][part]
                    self.unpack(bound)[name][..., part.span] = at
        self._zoom = Zoom.of(self._fixed, views) if "log_focal" in start and "translation" in start else None
        if "log_focal" in start and self._zoom is None:  # no camera that it could be the focal length of
            self.unpack(self._scale)["log_focal"].zero_()
        self._offsets = [name for name in ("static_offset", "dynamic_offset") if name in start]
        self._caps = by_region(self.head, CAP, 0.02) if self._offsets else None
        self._targets, self._surface, self._weights = targets, surface, weights
        self._faces = self.head.faces.int()
        self._clip, self._timestep = views.clip, views.timestep
        self._rows = list(range(len(targets)))
        self._index: Tensor | None = None
        self.active: Tensor | None = None
        """Which of the values belong to the timesteps that are looked at, where these are not all."""
        self._counted = torch.ones_like(self._scale)
        """How far each value's prior counts."""
        self._marks = [
            [_Marks.of(source, weights.closure) for source in target.sources]  # by timestep and source
            for target in targets
        ]
        # in squared millimetres: a noisy surface counts less by its own noise, too
        self._by_surface = weights.surface * surface.trust.share / (1 + (1000 * surface.trust.noise) ** 2)
        active = surface.active
        self._active = active
        zeros = torch.zeros(len(active), 3, device=device)
        # point, normal, weight divided by the sum of weights (0 where no point was found)
        self._planes = [(zeros.clone(), zeros.clone(), zeros[:, 0].clone()) for _ in targets]
        self._precision = self._precisions(prior)
        self._size: Tensor | None = None
        """By how many of its standard deviations each identity coefficient changes the head's size."""
        if prior.log_size is not None and "shape" in start:
            self._size = size_slopes(self.head, self.head.n_shape) / prior.log_size
        before = None if before is None else before.to(torch.float32)
        self._over_time = OverTime(self.head, weights, start, len(targets), before)

    def __call__(self) -> Projected:
        """Everything at the current values."""
        whole = self.current()
        now = self._looked_at(whole)
        vertices = now.vertices(self.head)
        seen = vertices if self._zoom is None else self._zoom.seen(vertices, now.log_focal)
        weights = self._weights
        held = self._prior(now)
        loss = held.new_zeros(())
        for place, row in enumerate(self._rows):
            target = self._targets[row]
            for source, marks in zip(target.sources, self._marks[row], strict=True):
                loss = loss + source.share * self._by_landmarks(seen[place], source, marks)
            if target.surface is not None and weights.surface:
                point, normal, share = self._planes[row]
                distance = 1000 * ((vertices[place].index_select(0, self._active) - point) * normal).sum(-1)
                loss = loss + self._by_surface * (share * geman_mcclure(distance.square(), 3.0)).sum()
        # pictures count by their mean: so do timesteps, and priors the less the more pictures there are
        balance = min(1.0, BALANCED / len(self._timestep)) if len(self._targets) > 1 else 1.0
        loss = loss / len(self._rows) + balance * held + pose_loss(weights, now, self._shapes, self._components)
        loss = loss + self._over_time(whole, now)
        pos = self._project(seen)
        return Projected(pos, front_faces(pos, self._faces), vertices, loss)

    def _by_landmarks(self, vertices: Float[Tensor, "V 3"], source: SourceTarget, marks: "_Marks") -> Tensor:
        """The terms of one source's landmarks at one timestep."""
        weights, found = self._weights, source.detections
        loss = vertices.new_zeros(())
        if len(marks.points) and weights.landmark_3d:
            model = vertices.index_select(0, marks.corners).reshape(-1, 3, 3)
            squared = ((model * marks.barycentric[..., None]).sum(1) - marks.points).square().sum(-1) * marks.precision
            loss = loss + weights.landmark_3d * (marks.weight * geman_mcclure(squared, 4.0)).sum()
        if found is not None and weights.landmark:
            apart = projected_landmark_loss(vertices, found, weights.jawline, visible=weights.visible)
            loss = loss + weights.landmark * apart
        if marks.pairs is not None:
            loss = loss + weights.closure * closure_loss(vertices, source.landmarks, marks.pairs)
        if marks.contour is not None and found is not None:
            loss = loss + weights.contour * contour_loss(vertices, marks.contour, found)
        return loss

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of a row like `values`, in the shapes of the parameters."""
        pieces = flat.split([shape.numel() for shape in self._shapes.values()])
        return {name: piece.reshape(shape) for (name, shape), piece in zip(self._shapes.items(), pieces, strict=True)}

    def moved(self, values: Tensor) -> dict[str, Tensor]:
        """The moving parameters for a row of values."""
        out = self.unpack(self._start + values * self._scale)
        if self._zoom is not None:
            out["translation"] = out["translation"] + self._zoom.farther(out["log_focal"])
        return out

    def current(self) -> FitParameters:
        """All parameters at the current values."""
        return replace(self._fixed, **self.moved(self.values))

    def turn_to(self, rows: list[int], views: ViewSet) -> None:
        """Looks at some timesteps alone from here on, in views whose `timestep` counts among them.

        Priors of what all timesteps share count by the part of the timesteps that is looked at, so that an epoch counts
        them once.
        """
        device = self._scale.device
        self._rows, self._index = rows, torch.tensor(rows, device=device)
        self._over_time.turn_to(rows)
        self._clip, self._timestep = views.clip, views.timestep
        self._counted.fill_(len(rows) / len(self._targets))
        active = torch.ones_like(self._scale, dtype=torch.bool)
        counted, chosen = self.unpack(self._counted), self.unpack(active)
        for parameter in PARAMETERS:
            if parameter.role == "frame" and parameter.name in counted:
                counted[parameter.name].zero_()[self._index] = 1.0
                chosen[parameter.name].zero_()[self._index] = True
        self.active = active

    def _looked_at(self, parameters: FitParameters) -> FitParameters:
        """Those of the timesteps that are looked at."""
        if self._index is None:
            return parameters
        own = [p.name for p in PARAMETERS if p.role == "frame"]
        return replace(parameters, **{name: getattr(parameters, name).index_select(0, self._index) for name in own})

    @torch.no_grad()
    def keep_possible(self) -> None:
        """Brings values back that a step has taken where no head can be."""
        torch.maximum(self.values, self._least, out=self.values)
        torch.minimum(self.values, self._most, out=self.values)
        for name in self._offsets:
            assert self._caps is not None
            offset, start, scale = (self.unpack(row)[name] for row in (self.values, self._start, self._scale))
            offset.copy_((capped(start + offset * scale, self._caps) - start) / scale)

    @property
    def moves_offsets(self) -> bool:
        """Whether offsets are among what moves."""
        return bool(self._offsets)

    def add_to_offsets(self, slope: Tensor, more: Tensor) -> None:
        """Adds to a row like `values` the offsets of another one."""
        for name in self._offsets:
            self.unpack(slope)[name].add_(self.unpack(more)[name])

    def vertices(self) -> Float[Tensor, "T V 3"]:
        """Posed vertices in the reference frame (m), as the stage's own cameras see them."""
        now = self.current()
        vertices = now.vertices(self.head)
        return vertices if self._zoom is None else self._zoom.seen(vertices, now.log_focal)

    def find_correspondences(self, vertices: Float[Tensor, "T V 3"]) -> None:
        """The avatar's closest points and the head's contour anew."""
        for row, target in enumerate(self._targets):
            for source, marks in zip(target.sources, self._marks[row], strict=True):
                if not self._weights.contour or source.detections is None:
                    continue
                found = find_contour(self.head, vertices[row], source.detections)
                if marks.contour is None:
                    marks.contour = found
                else:
                    marks.contour.copy_(found)
            if target.surface is None or not self._weights.surface:
                continue
            normals = vertex_normals(vertices[row : row + 1], self.head.faces)[0]
            index, found_points = target.surface.closest(vertices[row][self._active], normals[self._active], 0.008)
            points, planes = target.surface.tensors(vertices)
            weight = torch.where(found_points, self._surface.vertex[self._active].float(), 0.0)
            point, normal, share = self._planes[row]
            point.copy_(points[index])
            normal.copy_(planes[index])
            variance = 1e6 * target.surface.variance(index, weight)  # as above, a noisy point counts less
            share.copy_(weight / weight.sum().clamp_min(1e-12) / (1 + variance))

    def changing(self) -> Changing:
        """What `find_correspondences` writes; `values` belongs to whoever moves it."""
        out: Changing = {}
        for row, (point, normal, share) in enumerate(self._planes):
            out |= {f"{row}/point": point, f"{row}/normal": normal, f"{row}/share": share}
            for number, marks in enumerate(self._marks[row]):
                if marks.contour is not None:
                    out |= within(f"{row}/contour{number}", dict(vars(marks.contour)))
        return out

    def _project(self, vertices: Tensor) -> Tensor:
        points = vertices if len(vertices) == 1 else vertices.index_select(0, self._timestep)
        return clip_positions(points, self._clip).contiguous()

    def _precisions(self, prior: PriorConfig) -> Tensor:
        """Weight of each squared parameter in the Gaussian priors."""
        out = torch.zeros_like(self._scale)
        rows = self.unpack(out)
        for name, part in self._parts:
            # of the scale: the second-order stages have settled it
            if part.prior is not None and name != "placement":
                rows[name][..., part.span] = torch.tensor(
                    [sigma**-2 for sigma in part.prior_sigmas(prior)], device=out.device
                )
        if "eyelids" in rows:  # an eye that is shut when the stage begins is not at rest
            begun = self.unpack(self._start)["eyelids"]
            rows["eyelids"].copy_(rows["eyelids"] / (1 + rows["eyelids"] * begun.square()))
        return out

    def _prior(self, now: FitParameters) -> Tensor:
        """The Gaussian priors, summed over timesteps."""
        weights = self._weights
        loss = self.values.new_zeros(())
        if weights.prior:
            absolute = self._start + self.values * self._scale
            loss = loss + weights.prior * (self._precision * self._counted * absolute.square()).sum()
            if "eyes_pose" in self._shapes:
                apart = (now.eyes_pose[:, :3] - now.eyes_pose[:, 3:]) / VERGENCE
                loss = loss + weights.prior * apart.square().sum()
            if self._size is not None:
                loss = loss + weights.prior * (self._size @ now.shape).square()
        return loss
