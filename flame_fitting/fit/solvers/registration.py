"""Static offsets by sparse non-rigid registration.

Minimises, over the rest-space offsets d (V, 3), with closest points c anew in each outer iteration,
    sum_v w_v rho(n_c . (v + A_v d_v - c_v))^2  +  landmarks  +  a sum_(i,j) k_ij |d_i - d_j|^2  +  b sum_v |(L d)_v|^2,
with the stiffness `a` falling geometrically (Amberg et al., "Optimal step nonrigid ICP", CVPR 2007, with a membrane
and a thin-plate term in place of the affine one). A_v carries offsets through skinning and placement.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.spatial import cKDTree

from flame_fitting import progress
from flame_fitting.fit.contact import meetings
from flame_fitting.fit.folds import adjacent_faces, folded_triangles
from flame_fitting.fit.losses.offsets import capped
from flame_fitting.fit.losses.robust import geman_mcclure_weight
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import CAP, DEFAULT_CAP, SurfaceWeights, by_region
from flame_fitting.fit.solvers.contact_terms import add_contact, add_shut_lids
from flame_fitting.fit.solvers.interface import Stage
from flame_fitting.fit.solvers.jacobians import skinning_rotations
from flame_fitting.fit.solvers.offset_system import OffsetSystem
from flame_fitting.fit.state import FitState
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.head.mesh_graph import MeshGraph
from flame_fitting.head.model import HeadModel
from flame_fitting.render.shading import vertex_normals

STIFFNESS = {
    "neck": 2.0,
    "scalp": 2.0,
    "ears": 4.0,
    "face": 1.0,
    "eyelids": 3.0,
    "lips": 2.0,
    "lip_inside": 4.0,
    "eyeballs": 200.0,
}
"""Relative stiffness of the edges in each region; eyeballs move as a whole."""

_SURE = 0.001
"""Noise of a surface, m, at which it counts half."""


@dataclass
class OffsetConfig:
    """Constants of the registration."""

    stiffness_from: float = 10.0
    """Membrane stiffness at the start."""
    stiffness_to: float = 0.03
    """Membrane stiffness at the end."""
    bending: float = 0.5
    """Thin-plate stiffness relative to the membrane's."""
    landmark: float = 0.02
    """Weight of one landmark at its floor of 1 mm, against one vertex of the face."""
    cut_from: float = 0.006
    """Robust scale at the start, m."""
    cut_to: float = 0.002
    """Robust scale at the end, m."""
    rim: float = 0.3
    """Weight of the neck's rim to an open edge of the avatar, where one is within `rim_reach`."""
    rim_reach: float = 0.012
    """Metres."""
    contact: float = 10.0
    """Weight of a lip's vertex that would pass through the other lip, or of a lid's that would enter the eyeball,
    against one vertex of the face."""
    contact_from: float = 0.4
    """Share of the iterations from which on parts keep apart."""
    shut: float = 3.0
    """Weight of a gap between lids that are shut."""
    clearance: float = 0.00005
    """Metres that they keep."""


def solve(state: FitState, seen: Observations, stage: Stage, shown: progress.Bar) -> FitState:
    """Static offsets; all else stays."""
    args = (seen.head, state.parameters, seen.targets, seen.surface, stage.settings.num_steps)
    return replace(state, parameters=fit_offsets(*args, report=lambda _: shown.advance()))


def fit_offsets(
    head: HeadModel,
    parameters: FitParameters,
    targets: list[FrameTarget],
    surface: SurfaceWeights,
    iterations: int,
    config: OffsetConfig | None = None,
    report: Callable[[int], None] | None = None,
) -> FitParameters:
    """Offsets that bring the posed head onto the visible surface, in so many outer iterations; all else is held.

    It stiffens where triangles fold, but few folds may be left: `repair` opens them.
    """
    config = config or OffsetConfig()
    edges = MeshGraph(head.faces.cpu().numpy(), head.n_vertices).edges
    laplacian = uniform_laplacian(edges, head.n_vertices)
    stiffness = by_region(head, STIFFNESS, 2.0).cpu().numpy()
    edges, strength = _tie_eyeballs(head, edges, stiffness[edges].max(axis=1))
    caps = by_region(head, CAP, DEFAULT_CAP)
    out = parameters.clone()
    extra, pairs = np.ones(head.n_vertices), adjacent_faces(head.faces)
    rims = _rim_edges(head, out, targets, config)
    parts = meetings(head) if config.contact else []
    for iteration in range(iterations):
        if report is not None:
            report(iteration)
        done = iteration / max(iterations - 1, 1)
        membrane = config.stiffness_from * (config.stiffness_to / config.stiffness_from) ** done
        cut = config.cut_from * (config.cut_to / config.cut_from) ** done
        pull = strength * np.maximum(extra[edges[:, 0]], extra[edges[:, 1]])
        smooth = membrane * graph_laplacian(edges, pull, head.n_vertices)
        plate = laplacian.T @ sparse.diags(stiffness * extra) @ laplacian
        regular = smooth + membrane * config.bending * plate + 1e-4 * sparse.identity(head.n_vertices)
        system = OffsetSystem.empty(out.static_offset[0], sparse.csr_matrix(regular))
        add_data(system, head, out, targets, surface, config, cut, rims)
        if parts and done >= config.contact_from:
            add_contact(system, head, out, parts, config.contact, config.clearance)
            add_shut_lids(system, head, out, targets, config.shut)
        solution = capped(system.solve(out.static_offset[0]), caps)
        trial = replace(out, static_offset=solution[None])
        folded = folded_triangles(head, trial, pairs)
        if folded.any():
            # stiffen around folds, and solve again from here
            touched = np.zeros(head.n_vertices, dtype=bool)
            touched[head.faces[folded].cpu().numpy().ravel()] = True
            ring = np.zeros_like(touched)
            ring[edges[touched[edges[:, 0]], 1]] = True
            ring[edges[touched[edges[:, 1]], 0]] = True
            extra = np.where(touched | ring, extra * 4, extra)
        out = trial
    return out


def uniform_laplacian(edges: np.ndarray, count: int) -> sparse.csr_matrix:
    """(V, V) with 1 on the diagonal and -1/degree on neighbours; zero rows for lone vertices."""
    i, j = np.concatenate([edges, edges[:, ::-1]]).T
    adjacency = sparse.csr_matrix((np.ones(len(i)), (i, j)), shape=(count, count))
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    inverse = np.divide(1.0, degree, out=np.zeros(count), where=degree > 0)
    return sparse.csr_matrix(sparse.diags((degree > 0).astype(float)) - sparse.diags(inverse) @ adjacency)


def graph_laplacian(edges: np.ndarray, weight: np.ndarray, count: int) -> sparse.csr_matrix:
    """(V, V) matrix G with x^T G x = sum over edges of weight * (x_i - x_j)^2."""
    i, j = edges.T
    off = sparse.coo_matrix((-weight, (i, j)), shape=(count, count))
    both = off + off.T
    return sparse.csr_matrix(both - sparse.diags(np.asarray(both.sum(axis=1)).ravel()))


def add_data(
    system: OffsetSystem,
    head: HeadModel,
    parameters: FitParameters,
    targets: list[FrameTarget],
    surface: SurfaceWeights,
    config: OffsetConfig,
    cut: float,
    rims: list[np.ndarray] | None = None,
) -> None:
    """Adds the data terms for the offsets themselves, summed over timesteps.

    `cut` is the robust scale, m; `rims` (E, 3) are open edges of each timestep's surface.
    """
    for timestep, target in enumerate(targets):
        carry = skinning_rotations(head, parameters, timestep)
        vertices = parameters.vertices(head)[timestep]
        base = vertices - torch.einsum("vab,vb->va", carry, parameters.static_offset[0])
        if target.surface is not None:
            normals = vertex_normals(vertices[None], head.faces)[0]
            active = surface.active
            index, found = target.surface.closest(vertices[active], normals[active], max_distance=4 * cut)
            chosen, index = active[found], index[found]
            points, planes = target.surface.tensors(vertices)
            plane, point = planes[index], points[index]
            residual = (plane * (vertices[chosen] - point)).sum(-1)
            scale = torch.where(residual < 0, cut * surface.outside_cut[chosen], cut)
            weight = surface.trust.share * surface.vertex[chosen] * geman_mcclure_weight(residual, scale)
            weight = weight / (1 + target.surface.variance(index, weight) / _SURE**2)
            direction = torch.einsum("nc,ncd->nd", plane, carry[chosen])
            system.add_rows(chosen, direction, (plane * (point - base[chosen])).sum(-1), weight)
        if rims is not None and len(rims[timestep]):
            rim = head.regions["bottomline"]
            reach = config.rim_reach
            distance, nearest = cKDTree(rims[timestep]).query(
                vertices[rim].cpu().numpy(), distance_upper_bound=reach, workers=-1
            )
            reached = np.isfinite(distance)
            rim = rim[torch.as_tensor(reached, device=rim.device)]
            goal = torch.as_tensor(rims[timestep][nearest[reached]]).to(vertices)
            weight = config.rim * geman_mcclure_weight(torch.as_tensor(distance[reached]).to(vertices), 0.5 * reach)
            for axis in range(3):
                system.add_rows(rim, carry[rim][:, axis], goal[:, axis] - base[rim][:, axis], weight)
        for source in target.sources:
            marks = source.landmarks
            if not len(marks.corners):
                continue
            pull = config.landmark * source.share * marks.weight * (0.001 / marks.sigma).square()
            pull = pull * geman_mcclure_weight((marks.model_points(vertices) - marks.points).norm(dim=-1), 0.004)
            matrices = carry[marks.corners] * marks.barycentric[:, :, None, None]
            system.add_points(marks.corners, matrices, marks.points - marks.model_points(base), pull)


def _rim_edges(
    head: HeadModel, parameters: FitParameters, targets: list[FrameTarget], config: OffsetConfig
) -> list[np.ndarray]:
    """Open edges (E, 3) of each timestep's surface around the neck's rim: a bust ends somewhere, a body does not."""
    rim = head.regions.get("bottomline")
    if rim is None or config.rim <= 0:
        return [np.zeros((0, 3)) for _ in targets]
    places = parameters.vertices(head)[:, rim].cpu().numpy()
    return [
        target.surface.edges_near(places[t], 1.5 * config.rim_reach) if target.surface is not None else np.zeros((0, 3))
        for t, target in enumerate(targets)
    ]


def _tie_eyeballs(head: HeadModel, edges: np.ndarray, strength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adds edges from the lids to the eyeballs, so that an eyeball follows the lids around it."""
    regions = head.regions
    if "eyelids" not in regions or "eyeballs" not in regions:
        return edges, strength
    lids, balls = regions["eyelids"].cpu().numpy(), regions["eyeballs"].cpu().numpy()
    template = head.v_template.double().cpu().numpy()
    _, nearest = cKDTree(template[balls]).query(template[lids])
    ties = np.stack([lids, balls[nearest]], axis=1)
    return np.concatenate([edges, ties]), np.concatenate([strength, np.full(len(ties), 1.0)])
