"""Second-order stages: Gauss-Newton on landmarks, then on landmarks and dense geometry (iterated closest points).

Both minimise half of
    N_l mean_i w_i rho(|p_i - l_i|^2 / s_i^2)  +  N_d mean_v w_v rho((n_c . (v - c_v))^2 / s_d^2)  +  priors,
where rho is Geman-McClure, c_v the closest visible point of the avatar, and N the number of independent measurements
that a term counts for (residuals of neighbours are correlated, so their plain number would drown the priors).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flame_fitting.fit.linearize import Columns, Linearizer
from flame_fitting.fit.losses.normal_equations import (
    Quadratic,
    gather_points,
    quadratic_of_residuals,
    quadratic_of_vectors,
)
from flame_fitting.fit.losses.robust import geman_mcclure_weight
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import SurfaceWeights
from flame_fitting.fit.surface import SurfaceCloud
from flame_fitting.fit.targets import FrameTarget, LandmarkTarget, PixelTarget
from flame_fitting.head.model import HeadModel
from flame_fitting.render.shading import vertex_normals

JAW_SHUT = -0.02
"""Least opening of the jaw, rad: it does not close further than shut."""


@dataclass(kw_only=True)
class PriorWeights:
    """Gaussian priors: one standard deviation of each parameter. Values are the options' (`PriorConfig`)."""

    shape: float
    """Identity coefficients (the model's own are of unit variance)."""
    expr: float
    """Expression coefficients; a static avatar is taken to be near neutral."""
    neck: float
    """Neck rotation, rad."""
    jaw: float
    """Jaw opening, rad; sideways and roll get a third of it."""
    eyes: float
    """Eye rotation, rad."""
    vergence: float = 0.05
    """Difference of the two eyes, rad."""
    log_scale: float
    """Change of scale against the landmarks' first estimate: a face alone fixes it to a few percent."""


@dataclass(kw_only=True)
class GaussNewtonWeights:
    """Balance of the second-order stages. What an option says (`WeightConfig`) has no default here."""

    landmark_count: float
    """Independent measurements that all landmarks together count for."""
    surface_count: float
    """The same for the surface of the avatar."""
    surface_back_count: float = 200.0
    """The same for avatar-to-model distances."""
    surface_sigma: float = 0.001
    """Standard deviation of the surface distance, m: what shape outside the model's basis leaves over."""
    landmark_cut: float = 4.0
    """Geman-McClure scale of landmarks, in standard deviations."""


def landmark_term(vertices: Tensor, jacobian: Tensor, target: LandmarkTarget, count: float, cut: float) -> Quadratic:
    """3D landmarks, robust."""
    points, moved = gather_points(vertices, jacobian, target.corners, target.barycentric)
    residuals = points - target.points
    normalised = residuals.norm(dim=-1) / target.sigma
    weight = target.weight * geman_mcclure_weight(normalised, cut) / target.sigma.square()
    return quadratic_of_vectors(residuals, moved, weight * (count / max(len(points), 1)))


def pixel_term(vertices: Tensor, jacobian: Tensor, target: PixelTarget, share: float, cut: float) -> Quadratic:
    """Landmarks that only have pixels: the distance across the ray at the point's depth, m, robust.

    `share` is what one such landmark counts for, as a 3D one does.
    """
    points, moved = gather_points(vertices, jacobian, target.corners, target.barycentric)
    rotation, offset = target.camera[:, :, :3], target.camera[:, :, 3]
    local = torch.einsum("nij,nj->ni", rotation, points) + offset
    local_moved = torch.einsum("nij,njp->nip", rotation, moved)
    # x - z * ray: the reprojection error in metres, linear in the point
    residuals = local[:, :2] - local[:, 2:] * target.rays
    rows = local_moved[:, :2] - target.rays[..., None] * local_moved[:, 2:]
    normalised = residuals.norm(dim=-1) / target.sigma
    weight = share * target.weight * geman_mcclure_weight(normalised, cut) / target.sigma**2
    return quadratic_of_residuals(residuals.reshape(-1), rows.flatten(0, 1), weight.repeat_interleave(2))


def marks_term(vertices: Tensor, jacobian: Tensor, target: FrameTarget, weights: GaussNewtonWeights) -> Quadratic:
    """All landmarks of one timestep: in space where they have a point, else in the pictures."""
    count, cut = weights.landmark_count, weights.landmark_cut
    total = landmark_term(vertices, jacobian, target.landmarks, count, cut)
    if target.pixels is not None:
        share = count / max(len(target.landmarks.points), 1)
        total = total + pixel_term(vertices, jacobian, target.pixels, share, cut)
    return total


def surface_term(
    vertices: Tensor,
    jacobian: Tensor,
    normals: Tensor,
    cloud: SurfaceCloud,
    weights: SurfaceWeights,
    count: float,
    sigma: float,
    cut: float,
) -> Quadratic:
    """Model to avatar, point to plane (Chen and Medioni 1992). `cut` (m) is the robust scale."""
    active = weights.active
    index, found = cloud.closest(vertices[active], normals[active], max_distance=max(4 * cut, 0.01))
    chosen, index = active[found], index[found]
    points, planes = cloud.tensors(vertices)
    plane = planes[index]
    # positive: the avatar's surface lies outside the model there
    residuals = (plane * (vertices[chosen] - points[index])).sum(-1)
    scale = torch.where(residuals < 0, cut * weights.outside_cut[chosen], torch.full_like(residuals, cut))
    robust = weights.vertex[chosen] * geman_mcclure_weight(residuals, scale)
    rows = torch.einsum("nc,ncp->np", plane, jacobian[chosen])
    total = weights.vertex[active].sum().clamp_min(1e-12)
    return quadratic_of_residuals(residuals, rows, robust * (count / (sigma**2 * total)))


def surface_back_term(
    vertices: Tensor,
    jacobian: Tensor,
    normals: Tensor,
    faces: Tensor,
    cloud: SurfaceCloud,
    sample: np.ndarray,
    weights: SurfaceWeights,
    count: float,
    sigma: float,
    cut: float,
) -> Quadratic:
    """Avatar to model: a sample of the avatar's points, each against the nearest triangle centre's plane."""
    from scipy.spatial import cKDTree

    active = weights.active_faces
    corners = faces[active]
    centres = vertices[corners].mean(1)
    facing = torch.nn.functional.normalize(normals[corners].mean(1), dim=-1)
    rows = torch.as_tensor(sample, device=vertices.device)
    points, planes = (values[rows] for values in cloud.tensors(vertices))
    distance, nearest = cKDTree(centres.cpu().numpy()).query(
        cloud.points[sample], distance_upper_bound=max(4 * cut, 0.01), workers=-1
    )
    found = torch.as_tensor(np.isfinite(distance), device=vertices.device)
    nearest_face = torch.as_tensor(np.where(np.isfinite(distance), nearest, 0), device=vertices.device)
    found &= (facing[nearest_face] * planes).sum(-1) > 0.5
    chosen = nearest_face[found]
    residuals = (planes[found] * (centres[chosen] - points[found])).sum(-1)
    outside = cut * weights.outside_cut[corners[chosen]].mean(1)
    scale = torch.where(residuals < 0, outside, torch.full_like(residuals, cut))
    robust = weights.face[active[chosen]] * geman_mcclure_weight(residuals, scale)
    moved = jacobian[corners[chosen]].mean(1)
    rows = torch.einsum("nc,ncp->np", planes[found], moved)
    return quadratic_of_residuals(residuals, rows, robust * (count / (sigma**2 * max(float(robust.numel()), 1.0))))


def prior_term(parameters: FitParameters, columns: Columns, timestep: int, prior: PriorWeights) -> Quadratic:
    """Gaussian priors of one timestep (shape and placement are shared and counted there once per timestep)."""
    size = columns.count
    hessian = parameters.shape.new_zeros(size, size)
    gradient, cost = parameters.shape.new_zeros(size), parameters.shape.new_zeros(())
    slices = columns.slices()

    def pull(span: slice, value: Tensor, sigma: Tensor | float) -> None:
        nonlocal cost
        precision = torch.as_tensor(sigma, dtype=value.dtype, device=value.device).expand(value.shape)
        precision = precision.square().reciprocal()
        rows = torch.arange(span.start, span.stop, device=value.device)
        hessian[rows, rows] += precision
        gradient[span] += precision * value
        cost = cost + 0.5 * (precision * value.square()).sum()

    share = 1.0 / parameters.timesteps
    for name, sigma in {"shape": prior.shape / share**0.5, "expr": prior.expr, "neck_pose": prior.neck}.items():
        if name in slices:
            value = getattr(parameters, name)
            row = value if value.ndim == 1 else value[timestep]
            pull(slices[name], row[: slices[name].stop - slices[name].start], sigma)
    if "jaw_pose" in slices:
        pull(slices["jaw_pose"], parameters.jaw_pose[timestep], torch.tensor([1, 1 / 3, 1 / 3]) * prior.jaw)
    if "eyes_pose" in slices:
        span, value = slices["eyes_pose"], parameters.eyes_pose[timestep]
        pull(span, value, prior.eyes)
        difference = torch.cat([torch.eye(3), -torch.eye(3)], dim=1).to(value) / prior.vergence
        hessian[span, span] += difference.T @ difference
        gradient[span] += difference.T @ (difference @ value)
    if "placement" in slices and columns.scale:
        last = slices["placement"].stop - 1
        pull(slice(last, last + 1), parameters.placement[6:7], prior.log_scale / share**0.5)
    return Quadratic(hessian, gradient, cost)


def solve_step(
    parameters: FitParameters, columns: Columns, terms: list[Quadratic], damping: float = 1e-6
) -> FitParameters:
    """One damped Gauss-Newton step of all timesteps together; they share placement and shape."""
    slices, steps = columns.slices(), parameters.timesteps
    shared: list[str] = [name for name in ("placement", "shape") if name in slices]
    own = [name for name in slices if name not in shared]
    width = {name: span.stop - span.start for name, span in slices.items()}
    shared_size, own_size = sum(width[n] for n in shared), sum(width[n] for n in own)
    device = parameters.shape.device
    order = torch.cat([torch.arange(slices[n].start, slices[n].stop, device=device) for n in shared + own])
    total = shared_size + steps * own_size
    hessian, gradient = parameters.shape.new_zeros(total, total), parameters.shape.new_zeros(total)
    for timestep, term in enumerate(terms):
        start = shared_size + timestep * own_size
        index = torch.cat([torch.arange(shared_size), torch.arange(start, start + own_size)]).to(device)
        hessian[index[:, None], index[None]] += term.hessian[order][:, order]
        gradient[index] += term.gradient[order]
    diagonal = hessian.diagonal()
    hessian = hessian + torch.diag(damping * diagonal.clamp_min(1e-9) + 1e-12)
    delta = -torch.linalg.solve(hessian, gradient)

    out = parameters.clone()
    start = 0
    for name in shared:
        getattr(out, name)[: width[name]] += delta[start : start + width[name]]
        start += width[name]
    for timestep in range(steps):
        for name in own:
            getattr(out, name)[timestep, : width[name]] += delta[start : start + width[name]]
            start += width[name]
    out.jaw_pose[:, 0].clamp_(min=JAW_SHUT)
    return out


def fit_landmarks(
    head: HeadModel,
    parameters: FitParameters,
    targets: list[FrameTarget],
    columns: Columns,
    prior: PriorWeights,
    weights: GaussNewtonWeights,
    iterations: int,
) -> FitParameters:
    """Levenberg-Marquardt on 3D landmarks and priors."""

    linearize = Linearizer(head, columns)

    def terms(now: FitParameters) -> list[Quadratic]:
        out = []
        for timestep, target in enumerate(targets):
            vertices, jacobian = linearize(now, timestep)
            landmark = marks_term(vertices, jacobian, target, weights)
            out.append(landmark + prior_term(now, columns, timestep, prior))
        return out

    return _iterate(parameters, columns, lambda now, _: terms(now), iterations, tolerance=1e-7)


def fit_geometry(
    head: HeadModel,
    parameters: FitParameters,
    targets: list[FrameTarget],
    columns: Columns,
    prior: PriorWeights,
    weights: GaussNewtonWeights,
    surface: SurfaceWeights,
    iterations: int,
    cut_from: float = 0.012,
    cut_to: float = 0.003,
    seed: int = 0,
    report: Callable[[int], None] | None = None,
) -> FitParameters:
    """Landmarks and dense geometry; correspondences anew in each iteration, robust scale annealed (m)."""
    samples = [
        np.random.default_rng(seed + t).choice(len(target.surface.points), min(6000, len(target.surface.points)), False)
        if target.surface is not None
        else np.zeros(0, dtype=int)
        for t, target in enumerate(targets)
    ]
    back = surface.back_weight
    linearize = Linearizer(head, columns)

    def terms(now: FitParameters, iteration: int) -> list[Quadratic]:
        progress = min(iteration / max(iterations * 0.6, 1), 1.0)
        cut = cut_from * (cut_to / cut_from) ** progress
        if report is not None:
            report(iteration)
        out = []
        for timestep, target in enumerate(targets):
            vertices, jacobian = linearize(now, timestep)
            total = marks_term(vertices, jacobian, target, weights) + prior_term(now, columns, timestep, prior)
            if target.surface is not None:
                normals = vertex_normals(vertices[None], head.faces)[0]
                args = (weights.surface_sigma, cut)
                total = total + surface_term(
                    vertices, jacobian, normals, target.surface, surface, weights.surface_count, *args
                )
                if back:
                    total = total + surface_back_term(
                        vertices,
                        jacobian,
                        normals,
                        head.faces,
                        target.surface,
                        samples[timestep],
                        surface,
                        weights.surface_back_count,
                        *args,
                    )
            out.append(total)
        return out

    return _iterate(parameters, columns, terms, iterations, tolerance=0.0)


def _iterate(
    parameters: FitParameters,
    columns: Columns,
    terms: Callable[[FitParameters, int], list[Quadratic]],
    iterations: int,
    tolerance: float,
) -> FitParameters:
    """Gauss-Newton with steps; stops early when the relative change of the cost falls below `tolerance`."""
    previous = None
    for iteration in range(iterations):
        quadratics = terms(parameters, iteration)
        if tolerance > 0:
            cost = float(torch.stack([q.cost for q in quadratics]).sum())
            if previous is not None and abs(previous - cost) < tolerance * max(previous, 1e-12):
                break
            previous = cost
        parameters = solve_step(parameters, columns, quadratics)
    return parameters
