"""The cost that second order makes smaller, and its system around given parameters (`gauss_newton` says what it is)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.solvers.biases import Biases
from flame_fitting.fit.solvers.block_arrow import BlockArrow, BlockVector
from flame_fitting.fit.solvers.centring import in_pictures
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.dolly import cameras
from flame_fitting.fit.solvers.evidence_terms import EvidenceTerms, Gaze
from flame_fitting.fit.solvers.jacobians import AT_ONCE, Linearizer, batches
from flame_fitting.fit.solvers.levenberg_marquardt import Bounds, holds
from flame_fitting.fit.solvers.moments import Moment
from flame_fitting.fit.solvers.priors import Priors, make_priors
from flame_fitting.fit.solvers.residuals import (
    BiasQuadratic,
    Measurements,
    Quadratic,
    landmarks_in_pictures,
    landmarks_in_space,
    projected_landmarks,
    surface_distances,
    surface_distances_back,
)
from flame_fitting.fit.solvers.size import size_slopes
from flame_fitting.fit.solvers.skin import Points, different
from flame_fitting.fit.solvers.steadiness import Shares, found_shares, groups_of
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.fit.weight_config import PriorConfig
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix
from flame_fitting.render.shading import vertex_normals

_SAMPLE = 6000
"""Points of an avatar's surface that look for the model."""


@dataclass(frozen=True, kw_only=True)
class GaussNewtonSettings:
    """Balance and schedule of the second-order solver. What an option says has no default here."""

    iterations: int
    landmark_count: float
    """Independent measurements that all landmarks of a timestep together count for."""
    surface_count: float
    """The same for the surface of the avatar."""
    surface_back_count: float = 200.0
    """The same for avatar-to-model distances."""
    surface_sigma: float = 0.001
    """Standard deviation of the surface distance, m: what shape outside the model's basis leaves over."""
    landmark_cut: float
    """Geman-McClure scale of landmarks, in standard deviations."""
    surface_cut: tuple[float, float] = (0.012, 0.003)
    """Geman-McClure scale of the surface at the beginning, and from three fifths of the iterations on, m."""
    smoothness: Mapping[str, float]
    """Standard deviation of a parameter's change from a timestep to the next, in its unit, by name (`priors`)."""
    steadied: bool
    """Whether timesteps are solved for once more in the end, with what these are found to be (`steadiness`)."""
    bias_sigma: float | None
    """Standard deviation of what each landmark is always off by, along each axis, m (`biases`); None: by nothing."""
    marginal: int
    """Newton steps, at most, from the joint mode of all to that of what timesteps share alone (`marginal`)."""
    volume: float
    """What the timesteps' volume counts for in it (`second_order.VOLUME`)."""
    evidence: float
    """Measurements that each opening and each angle of a detector's evidence counts for (`evidence_terms`)."""
    usual_log_focal: float
    """Mean of the prior of the logarithm of the focal length; those of all others are 0."""
    size_sigma: float | None
    """Standard deviation of the logarithm of the head's size over the mean one's (`size`); None: as identity has it."""
    moments: Sequence[Moment]
    """What is known beforehand of each timestep, where these are moments by themselves; empty: it is the prior."""
    seed: int
    """Of the sample of the avatar's points."""

    def cut(self, iteration: int) -> float:
        """Geman-McClure scale of the surface in one iteration, m."""
        first, last = self.surface_cut
        return first * (last / first) ** min(iteration / max(self.iterations * 0.6, 1), 1.0)


class Point(NamedTuple):
    """Where all unknowns are."""

    parameters: FitParameters
    bias: Tensor
    """(B, 3) m, of the landmarks, in axes that move as the skin does."""


class _Middle(NamedTuple):
    """The middles of the heads, of the vertices that are posed."""

    of: Point
    place: Tensor
    """(T, 3) m, in the reference frame."""
    slope: Tensor
    """(T, 3, P)"""


class Problem:
    """The cost, and its system around given parameters."""

    def __init__(
        self,
        head: HeadModel,
        targets: Sequence[FrameTarget],
        columns: Columns,
        prior: PriorConfig,
        settings: GaussNewtonSettings,
        surface: SurfaceWeights | None,
        like: FitParameters,
        before: FitParameters | None = None,
    ) -> None:
        self.head, self.targets, self.columns, self.settings, self.surface = head, targets, columns, settings, surface
        self.dense = surface is not None
        self.biases = Biases.of(targets, settings.bias_sigma, settings.landmark_count, head)
        self.evidence = EvidenceTerms(head, targets, columns, settings.evidence, like.expr, bool(settings.moments))
        self.biases = self.evidence.with_unknowns(self.biases)
        self._prior, self._like, self._before = prior, like, before
        self.priors = self.priors_with({})
        self._middle: _Middle | None = None
        self._middled = False
        self._batches = batches(like.timesteps, 1 if self.dense else AT_ONCE)
        self._cameras = cameras(targets, like.expr)
        self.bounds = bounds_of(columns, like.expr)
        self._terms = [self._landmarks(target, like) + self.evidence.of(t, like) for t, target in enumerate(targets)]
        self.chosen = None if self.dense else self._points()
        self._linearizer = Linearizer(head, columns, self.chosen)
        self._samples = [self._sample(t, target) for t, target in enumerate(targets)]

    def priors_with(self, shares: Shares) -> Priors:
        """The priors, with changes over time that deviate by so much of what is stated."""
        columns, settings, like = self.columns, self.settings, self._like
        of_time = (settings.smoothness, like.timesteps, like.expr, self._before, shares)
        out = make_priors(columns, self._prior, *of_time, settings.moments)
        shared = torch.block_diag(out.shared, torch.diag(self.biases.precision.repeat_interleave(3)))
        usual = shared.new_zeros(len(shared))
        if (column := columns.slices().get("log_focal")) is not None:
            usual[column] = settings.usual_log_focal
        if (column := columns.slices().get("shape")) is not None and settings.size_sigma is not None:
            slopes = size_slopes(self.head, column.stop - column.start)
            shared[column, column] += torch.outer(slopes, slopes) / settings.size_sigma**2
        return replace(out, shared=shared, usual=usual)

    def find_shares(self, now: Point, system: BlockArrow, gradient: BlockVector) -> Shares:
        """From here on priors of changes are as the sequence has them, by everything's system and slope
        (`steadiness`)."""
        values = self.values(now)
        at, held = values.frames, holds(gradient, values, self.bounds)
        groups = groups_of(self.columns, self._prior, self.settings.smoothness, at)
        shares = found_shares(groups, system.frames_alone(), gradient.frames, at, self.priors, self.priors_with, held)
        self.priors = self.priors_with(shares)
        return shares

    def _points(self) -> Points:
        """All that is measured, as points that are posed themselves; the last one is the middle of their vertices."""
        own = [measured for terms in self._terms for measured in terms]
        marks = [measured.corners.flatten() for measured in own if not isinstance(measured, Gaze)]
        vertices = torch.unique(torch.cat([self.evidence.corners, *marks]))
        groups, number = different([(measured.corners, measured.shares) for measured in own])
        numbered = iter(measured.of_points(found) for measured, found in zip(own, number, strict=True))
        self._terms = [[next(numbered) for _ in terms] for terms in self._terms]
        middle = (vertices[None], self.head.weights.new_full((1, len(vertices)), 1 / max(len(vertices), 1)))
        self._middled = "translation" in self.columns.slices() and len(vertices) > 0
        return Points(self.head, [*groups, middle])

    def begin(self, parameters: FitParameters) -> Point:
        """Parameters, and no bias yet."""
        return Point(parameters, parameters.expr.new_zeros(self.biases.count, 3))

    def values(self, now: Point) -> BlockVector:
        """Where the unknowns are; the biases come last among those that are shared."""
        at = self.columns.values(now.parameters)
        return at._replace(shared=torch.cat([at.shared, now.bias.flatten()]))

    def moved(self, now: Point, x: BlockVector) -> Point:
        """With other values of the unknowns. From where the system was made last, heads go where that means it
        (`centring`), so that their translation is not what x says in second order."""
        size = self.columns.n_shared
        parameters = self.columns.with_values(now.parameters, x._replace(shared=x.shared[:size]))
        if self._middle is not None and self._middle.of is now:
            parameters = self._centred(now, parameters, x, self._middle)
        return Point(parameters, x.shared[size:].reshape(-1, 3))

    def _centred(self, now: Point, parameters: FitParameters, x: BlockVector, middle: _Middle) -> FitParameters:
        at = self.values(now)
        shared = (x.shared - at.shared)[: self.columns.n_shared].expand(len(middle.place), -1)
        change = torch.einsum("tcp,tp->tc", middle.slope, torch.cat([shared, x.frames - at.frames], dim=1))
        wanted = middle.place + change
        if "log_focal" in self.columns.slices():
            longer = parameters.log_focal[0] - now.parameters.log_focal[0]
            seen = in_pictures(self._cameras, middle.place, change, longer)
            wanted = torch.where(self._cameras.flatten(1).any(1, keepdim=True), seen, wanted)
        places = [self._linearizer.vertices_of(parameters, rows)[:, -1] for rows in self._batches]
        placement = parameters.placement
        beside = (torch.cat(places) - wanted) @ rotation_matrix(placement[:3]) / placement[6].exp()
        return replace(parameters, translation=parameters.translation - beside)

    def _sample(self, timestep: int, target: FrameTarget) -> np.ndarray:
        if target.surface is None or not self.dense:
            return np.zeros(0, dtype=int)
        count = len(target.surface.points)
        return np.random.default_rng(self.settings.seed + timestep).choice(count, min(_SAMPLE, count), False)

    def _landmarks(self, target: FrameTarget, parameters: FitParameters) -> list[Measurements]:
        """Landmarks of one timestep: in space where they have a point, else in the pictures; no empty ones."""
        cut, out = self.settings.landmark_cut, []
        for number, source in enumerate(target.sources):
            count, bias = self.settings.landmark_count * source.share, partial(self.biases.rows, number)
            of_points = bias(torch.as_tensor(source.landmarks.index))
            out.append(landmarks_in_space(source.landmarks, count, cut, of_points))
            if source.pixels is not None:
                # one that only pictures show counts as one in space does
                share = count / max(len(source.landmarks.points), source.pixels.points)
                of_pixels = bias(source.pixels.index)
                if len(source.landmarks.points):
                    out.append(landmarks_in_pictures(source.pixels, share, cut, of_pixels))
                else:
                    column = self.columns.slices().get("log_focal")
                    args = (parameters.log_focal[0], None if column is None else column.start)
                    out.append(projected_landmarks(source.pixels, share, cut, *args, of_pixels))
        return [measured for measured in out if len(measured.weight)]

    def _measure(self, timestep: int, vertices: Tensor, cut: float) -> list[Measurements]:
        """Everything at one timestep, with correspondences of the vertices as they are."""
        target, surface, settings, out = self.targets[timestep], self.surface, self.settings, self._terms[timestep]
        if surface is None or target.surface is None:
            return out
        normals = vertex_normals(vertices[None], self.head.faces)[0]
        sigma, share = float(np.hypot(settings.surface_sigma, surface.trust.noise)), surface.trust.share
        count = share * settings.surface_count
        out = [*out, surface_distances(vertices, normals, target.surface, surface, count, sigma, cut)]
        if surface.back_weight:
            sample, count = self._samples[timestep], share * settings.surface_back_count
            faces = self.head.faces
            out.append(
                surface_distances_back(vertices, normals, faces, target.surface, sample, surface, count, sigma, cut)
            )
        return out

    def linearised(self, now: Point, cut: float) -> tuple[BlockArrow, BlockVector, float, list[list[Measurements]]]:
        """System, slope and cost, and the measurements whose correspondences they hold."""
        parameters = now.parameters
        sums = _Sums(self.priors, self.values(now), self.columns.n_shared, self.biases.count)
        terms: list[list[Measurements]] = []
        middles = []
        for rows in self._batches:
            vertices, jacobian = self._linearizer.of(parameters, rows)
            turns = self.biases.turns_of(parameters, rows)
            shifts = self.biases.shifts(turns, now.bias)
            levers = self.biases.levers(self._linearizer, parameters, rows, now.bias)
            middles.append((vertices[:, -1].clone(), jacobian[:, -1].clone()))  # a view would hold the whole Jacobian
            for n, t in enumerate(range(rows.start, rows.stop)):
                found = self._measure(t, vertices[n], cut)
                terms.append([measured.at(parameters, shifts[n]) for measured in found])
                moving = [measured.carried(levers[n], self._linearizer.turning) for measured in terms[-1]]
                linear = [measured.linear(vertices[n], jacobian[n]) for measured in moving]
                for measured, around in zip(terms[-1], linear, strict=True):
                    sums.add(t, measured.quadratic(vertices[n], jacobian[n], around))
                of_biases = [m.with_biases(around, turns[n]) for m, around in zip(terms[-1], linear, strict=True)]
                sums.add_biases(t, [more for more in of_biases if more is not None])
        if self._middled:
            self._middle = _Middle(now, *(torch.cat(parts) for parts in zip(*middles, strict=True)))
        return sums.system(self.priors.below), sums.slope, sums.cost, terms

    def cost_at(self, now: Point, terms: list[list[Measurements]], x: BlockVector) -> float:
        """The cost where the unknowns are x, with these correspondences."""
        there = self.moved(now, x)
        (parameters, bias), cost = there, self.priors.cost(self.values(there))
        for rows in self._batches:
            vertices = self._linearizer.vertices_of(parameters, rows)
            shifts = self.biases.shifts(self.biases.turns_of(parameters, rows), bias)
            for n, measurements in enumerate(terms[rows]):
                cost += sum(float(measured.at(parameters, shifts[n]).cost(vertices[n])) for measured in measurements)
        return cost

    def tilted_cost_at(self, now: Point, terms: list[list[Measurements]], pull: Tensor, x: BlockVector) -> float:
        """The same, and a pull on the shared unknowns."""
        return self.cost_at(now, terms, x) + float(pull @ x.shared)


def bounds_of(columns: Columns, like: Tensor) -> Bounds:
    """Of the unknowns of each timestep."""
    out = []
    for name, none in (("least", -np.inf), ("most", np.inf)):
        own = [
            like.new_tensor(getattr(block.part, name) or (none,)).expand(block.columns.stop - block.columns.start)
            for block in columns.frame
        ]
        out.append(torch.cat([like.new_zeros(0), *own]))
    return Bounds(*out)


class _Sums:
    """System, slope and cost, while measurements are added to the priors."""

    def __init__(self, priors: Priors, at: BlockVector, size: int, biases: int) -> None:
        """`size` unknowns of the columns are shared by all timesteps, and so are the biases', after them."""
        self.slope, self.cost, self._size = priors.gradient(at), priors.cost(at), size
        self._corner, self._diagonal = priors.shared.clone(), priors.diagonal.clone()
        self._arrow = at.frames.new_zeros(*at.frames.shape, len(self._corner))
        self._own = at.frames.new_zeros(biases, 3, 3)
        self._cross = at.frames.new_zeros(biases, 3, size)

    def add(self, timestep: int, term: Quadratic) -> None:
        """Measurements of one timestep, without what they tell of biases."""
        size = self._size
        self._corner[:size, :size] += term.hessian[:size, :size]
        self._arrow[timestep, :, :size] += term.hessian[size:, :size]
        self._diagonal[timestep] += term.hessian[size:, size:]
        self.slope.shared[:size] += term.gradient[:size]
        self.slope.frames[timestep] += term.gradient[size:]
        self.cost += float(term.cost)

    def add_biases(self, timestep: int, terms: Sequence[BiasQuadratic]) -> None:
        """What all measurements of one timestep tell of biases."""
        size, slope = self._size, self.slope.shared[self._size :].view(-1, 3)
        own = slope.new_zeros(*slope.shape, self._arrow.shape[1])
        for term in terms:
            term.add_to(self._own, term.own)
            term.add_to(self._cross, term.cross[..., :size])
            term.add_to(own, term.cross[..., size:])
            term.add_to(slope, term.gradient)
        self._arrow[timestep, :, size:] = own.flatten(0, 1).T

    def system(self, below: Tensor) -> BlockArrow:
        """All that was added."""
        size, cross, corner = self._size, self._cross.flatten(0, 1), self._corner
        corner[size:, :size] += cross
        corner[:size, size:] += cross.T
        if len(cross):
            corner[size:, size:] += torch.block_diag(*self._own)
        return BlockArrow(corner, self._arrow, self._diagonal, below)
