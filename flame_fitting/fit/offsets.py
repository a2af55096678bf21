"""Static offsets by sparse non-rigid registration.

Minimises, over the rest-space offsets d (V, 3), with closest points c anew in each outer iteration,
    sum_v w_v rho(n_c . (v + A_v d_v - c_v))^2  +  landmarks  +  a sum_(i,j) k_ij |d_i - d_j|^2  +  b sum_v |(L d)_v|^2,
with the stiffness `a` falling geometrically (Amberg et al., "Optimal step nonrigid ICP", CVPR 2007, with a membrane
and a thin-plate term in place of the affine one). A_v carries offsets through skinning and placement.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from flame_fitting.fit.linearize import skinning_rotations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import SurfaceWeights, by_region
from flame_fitting.fit.targets import FrameTarget
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

CAP = {"neck": 0.02, "scalp": 0.02, "ears": 0.012, "face": 0.012, "eyeballs": 0.006, "lip_inside": 0.008}
"""Largest offset by region, m."""


@dataclass
class OffsetConfig:
    """Static offsets."""

    iterations: int = 8
    """Outer iterations."""
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


def fit_offsets(
    head: HeadModel,
    parameters: FitParameters,
    targets: list[FrameTarget],
    surface: SurfaceWeights,
    config: OffsetConfig,
    report: Callable[[int], None] | None = None,
) -> FitParameters:
    """Offsets that bring the posed head onto the visible surface; everything else is held."""
    edges = mesh_edges(head.faces.numpy())
    laplacian = uniform_laplacian(edges, head.n_vertices)
    stiffness = by_region(head, STIFFNESS, 2.0).numpy()
    edges, strength = _tie_eyeballs(head, edges, stiffness[edges].max(axis=1))
    caps = by_region(head, CAP, 0.02).numpy()
    out = parameters.clone()
    extra = np.ones(head.n_vertices)
    rims = _rim_edges(head, out, targets, config)
    for iteration in range(config.iterations):
        if report is not None:
            report(iteration)
        progress = iteration / max(config.iterations - 1, 1)
        membrane = config.stiffness_from * (config.stiffness_to / config.stiffness_from) ** progress
        cut = config.cut_from * (config.cut_to / config.cut_from) ** progress
        matrix, right = _data_system(head, out, targets, surface, config, cut, rims)
        pull = strength * np.maximum(extra[edges[:, 0]], extra[edges[:, 1]])
        smooth = membrane * graph_laplacian(edges, pull, head.n_vertices)
        plate = laplacian.T @ sparse.diags(stiffness * extra) @ laplacian
        regular = smooth + membrane * config.bending * plate + 1e-4 * sparse.identity(head.n_vertices)
        matrix = (matrix + sparse.kron(regular, sparse.identity(3))).tocsc()
        solution = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(right).reshape(-1, 3)
        solution = _capped(solution, caps)
        trial = out.clone()
        trial.static_offset[0] = torch.as_tensor(solution).to(out.static_offset)
        folded = folded_triangles(head, trial)
        if folded.any():
            # stiffen around folds, and solve again from here
            touched = np.zeros(head.n_vertices, dtype=bool)
            touched[head.faces[torch.as_tensor(folded)].numpy().ravel()] = True
            ring = np.zeros_like(touched)
            ring[edges[touched[edges[:, 0]], 1]] = True
            ring[edges[touched[edges[:, 1]], 0]] = True
            extra = np.where(touched | ring, extra * 4, extra)
            if iteration == config.iterations - 1:
                trial.static_offset[0] = torch.as_tensor(_relaxed(head, out, solution, touched | ring, edges)).to(
                    out.static_offset
                )
        out = trial
    return out


def folded_triangles(head: HeadModel, parameters: FitParameters) -> np.ndarray:
    """Bool (F,): triangles whose normal turns by more than 90 degrees because of the offsets."""
    bare = parameters.clone()
    bare.static_offset.zero_()
    before, after = (_face_normals(p.vertices(head)[0], head.faces) for p in (bare, parameters))
    return ((before * after).sum(-1) < 0).numpy()


def mesh_edges(faces: np.ndarray) -> np.ndarray:
    """(E, 2) unique undirected edges of triangles (F, 3)."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return np.unique(np.sort(pairs, axis=1), axis=0)


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


def _data_system(
    head: HeadModel,
    parameters: FitParameters,
    targets: list[FrameTarget],
    surface: SurfaceWeights,
    config: OffsetConfig,
    cut: float,
    rims: list[np.ndarray],
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Normal equations (3V, 3V), (3V,) of the data terms for the offsets themselves, summed over timesteps."""
    count = head.n_vertices
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    values: list[np.ndarray] = []
    right: list[np.ndarray] = []
    total = 0

    def add(vertex: np.ndarray, coefficient: np.ndarray, value: np.ndarray, weight: np.ndarray) -> None:
        """Rows of sum_k coefficient[:, k] . d[vertex[:, k]] = value, weighted; vertex (n, K), coefficient (n, K, 3)."""
        nonlocal total
        number, corners = vertex.shape
        root = np.sqrt(weight)
        rows.append(np.repeat(np.arange(total, total + number), corners * 3))
        columns.append((vertex[:, :, None] * 3 + np.arange(3)).ravel())
        values.append((coefficient * root[:, None, None]).ravel())
        right.append(value * root)
        total += number

    for timestep, target in enumerate(targets):
        carry = skinning_rotations(head, parameters, timestep).numpy()
        posed = parameters.vertices(head)[timestep]
        vertices = posed.numpy()
        offset = parameters.static_offset[0].numpy()
        base = vertices - np.einsum("vab,vb->va", carry, offset)
        if target.surface is not None:
            normals = vertex_normals(posed[None], head.faces)[0].numpy()
            cloud, active = target.surface, surface.active.numpy()
            index, found = cloud.closest(vertices[active], normals[active], max_distance=4 * cut)
            chosen, index = active[found], index[found]
            plane, point = cloud.normals[index], cloud.points[index]
            residual = np.einsum("nc,nc->n", plane, vertices[chosen] - point)
            scale = np.where(residual < 0, cut * surface.outside_cut.numpy()[chosen], cut)
            weight = surface.vertex.numpy()[chosen] / (1 + (residual / scale) ** 2) ** 2
            add(
                chosen[:, None],
                np.einsum("nc,ncd->nd", plane, carry[chosen])[:, None],
                np.einsum("nc,nc->n", plane, point - base[chosen]),
                weight,
            )
        if len(rims[timestep]):
            rim = head.regions["bottomline"].numpy()
            distance, nearest = cKDTree(rims[timestep]).query(vertices[rim], distance_upper_bound=config.rim_reach)
            reached = np.isfinite(distance)
            rim, goal = rim[reached], rims[timestep][nearest[reached]]
            weight = config.rim / (1 + (distance[reached] / (0.5 * config.rim_reach)) ** 2) ** 2
            for axis in range(3):
                add(rim[:, None], carry[rim][:, None, axis], goal[:, axis] - base[rim][:, axis], weight)
        marks = target.landmarks
        corners, barycentric = marks.corners.numpy(), marks.barycentric.numpy()
        if len(corners):
            pull = config.landmark * (marks.weight * (0.001 / marks.sigma).square()).numpy()
            now = np.einsum("nkc,nk->nc", vertices[corners], barycentric)
            distance = np.linalg.norm(now - marks.points.numpy(), axis=1)
            pull = pull / (1 + (distance / 0.004) ** 2) ** 2
            start = np.einsum("nkc,nk->nc", base[corners], barycentric)
            for axis in range(3):
                coefficient = carry[corners][:, :, axis] * barycentric[:, :, None]
                add(corners, coefficient, marks.points.numpy()[:, axis] - start[:, axis], pull)
    matrix = sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(total, 3 * count)
    )
    return (matrix.T @ matrix).tocsr(), matrix.T @ np.concatenate(right)


def _rim_edges(
    head: HeadModel, parameters: FitParameters, targets: list[FrameTarget], config: OffsetConfig
) -> list[np.ndarray]:
    """Open edges (E, 3) of each timestep's surface around the neck's rim: a bust ends somewhere, a body does not."""
    rim = head.regions.get("bottomline")
    if rim is None or config.rim <= 0:
        return [np.zeros((0, 3)) for _ in targets]
    places = parameters.vertices(head)[:, rim].numpy()
    return [
        target.surface.edges_near(places[t], 1.5 * config.rim_reach) if target.surface is not None else np.zeros((0, 3))
        for t, target in enumerate(targets)
    ]


def _tie_eyeballs(head: HeadModel, edges: np.ndarray, strength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Adds edges from the lids to the eyeballs, so that an eyeball follows the lids around it."""
    regions = head.regions
    if "eyelids" not in regions or "eyeballs" not in regions:
        return edges, strength
    lids, balls = regions["eyelids"].numpy(), regions["eyeballs"].numpy()
    template = head.v_template.double().numpy()
    _, nearest = cKDTree(template[balls]).query(template[lids])
    ties = np.stack([lids, balls[nearest]], axis=1)
    return np.concatenate([edges, ties]), np.concatenate([strength, np.full(len(ties), 1.0)])


def _capped(offsets: np.ndarray, caps: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(offsets, axis=1)
    return offsets * np.minimum(1.0, caps / np.maximum(size, 1e-12))[:, None]


def _relaxed(
    head: HeadModel,
    before: FitParameters,
    solution: np.ndarray,
    where: np.ndarray,
    edges: np.ndarray,
) -> np.ndarray:
    """Smooths the offsets around folds until none is left (at most 40 rounds), the rest untouched."""
    laplacian = uniform_laplacian(edges, len(solution))
    out, trial = solution.copy(), before.clone()
    for _ in range(40):
        trial.static_offset[0] = torch.as_tensor(out).to(trial.static_offset)
        folded = folded_triangles(head, trial)
        if not folded.any():
            break
        where = where.copy()
        where[head.faces[torch.as_tensor(folded)].numpy().ravel()] = True
        out[where] -= (laplacian @ out)[where]
    return out


def _face_normals(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    a, b, c = vertices[faces].unbind(1)
    return torch.linalg.cross(b - a, c - a)
