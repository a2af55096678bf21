"""Repairs triangles that offsets turned over: around them alone, and everything else stays as it was found.

Around the folded triangles, whose vertices are the core C, the offsets d are solved for again, with all others held:
    data(d)  +  h sum_(v not in C) |d_v - f_v|^2  +  b sum_t |grad_t (d - f)|^2  +  sum_t s_t |grad_t (d - r)|^2,
where f are the found offsets, but r in the second sum on triangles that touch C, and r are offsets that turn nothing:
none for static offsets, and the static ones for static and dynamic offsets together, at each timestep by itself. `data`
are the registration's distances of C to the surface, searched from where the sum without them leaves C: a smooth fill
from its rim. The gradients are those of the piecewise linear field on the triangles t of the posed head without offsets
(finite elements), so that thin triangles are held as thin triangles must be. `s` is above 0 at folded triangles and
next to them, and grows by a factor in each round in which they are folded still; neighbours that fold in turn join.
Where offsets differ from r by a constant nothing turns, so a large `s` opens a fold. What no round opens fades out to r
over a neighbourhood that grows until no fold is left: with r there is none.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sparse
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse.linalg import splu

from flame_fitting import progress
from flame_fitting.fit.folds import adjacent_faces, folded_at, folded_by_dynamic, folded_triangles
from flame_fitting.fit.losses.offsets import REFERENCE_EDGE, capped
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.region_weights import CAP, DEFAULT_CAP, SurfaceWeights, by_region
from flame_fitting.fit.solvers.offset_system import OffsetSystem
from flame_fitting.fit.solvers.registration import OffsetConfig, add_data
from flame_fitting.fit.targets import FrameTarget
from flame_fitting.head.mesh_graph import MeshGraph
from flame_fitting.head.model import HeadModel

GUARDED = ("eyelids", "lips", "face")
"""Regions in which no folded triangle is left, whatever it costs."""
_LOWEST = 5e-5  # m; heights of thinner triangles count as this, or the system could not be solved


@dataclass(frozen=True)
class RepairConfig:
    """How folds are opened."""

    rounds: int = 10
    """Solutions with growing stiffness."""
    growth: float = 8.0
    """Factor of a triangle's stiffness from one round in which it is folded to the next."""
    stiffness: float = 0.02
    """`s` in the first round, against one vertex of the face; a factor of `growth` less around."""
    smoothness: float = 0.01
    """`b`."""
    hold: float = 1.0
    """`h`."""
    rings: int = 4
    """Edges from the folds up to which offsets may change, two more in each further round."""
    fade: tuple[int, ...] = (4, 8, 16, 32)
    """Edges over which offsets fade out, where nothing else helps."""


@dataclass(eq=False)
class Repair:
    """What was repaired."""

    parameters: FitParameters
    smoothed: Bool[ndarray, " F"]
    """Triangles that were folded, at first or on the way."""
    faded: Bool[ndarray, " V"]
    """Vertices that lost offsets, in part or all."""
    timesteps: tuple[int, ...] = ()
    """Where dynamic offsets were repaired; none: the static ones were."""


def repair(
    head: HeadModel,
    parameters: FitParameters,
    targets: list[FrameTarget],
    surface: SurfaceWeights,
    config: RepairConfig | None = None,
) -> Repair:
    """Opens the folds of the static offsets. In the regions `GUARDED` none is left; elsewhere few may be.

    Without a surface in `targets` the found offsets themselves are the data.
    """
    if not bool(parameters.static_offset.any()):
        return Repair(parameters, *_nothing(head))
    pairs = adjacent_faces(head.faces)
    none = torch.zeros_like(parameters.static_offset[0])

    def folded(parameters: FitParameters) -> torch.Tensor:
        return folded_triangles(head, parameters, pairs)

    return _opened(head, parameters, targets, surface, config or RepairConfig(), none, folded)


def repair_dynamic(
    head: HeadModel,
    parameters: FitParameters,
    targets: list[FrameTarget],
    surface: SurfaceWeights,
    config: RepairConfig | None = None,
) -> Repair:
    """Opens what dynamic offsets fold where static ones alone do not: as `repair`, at each timestep by itself.

    Nothing but the dynamic offsets of such timesteps changes, around the folds. `targets` by timestep.
    """
    smoothed, faded = _nothing(head)
    if not bool(parameters.dynamic_offset.any()):
        return Repair(parameters, smoothed, faded)
    pairs, rows = adjacent_faces(head.faces), list[int]()
    dynamic, static = parameters.dynamic_offset.clone(), parameters.static_offset
    with progress.Bar(parameters.timesteps, "repair", "timestep") as shown:
        for row in range(parameters.timesteps):
            shown.advance()
            own = parameters.of_frames([row])
            if not folded_by_dynamic(head, own, pairs).any():
                continue
            alone = replace(own.without_dynamic_offset(), static_offset=own.offset)
            known = folded_at(head, own.without_dynamic_offset(), pairs)[0]

            def folded(parameters: FitParameters, known: torch.Tensor = known) -> torch.Tensor:
                return folded_at(head, parameters, pairs)[0] & ~known

            done = _opened(head, alone, targets[row : row + 1], surface, config or RepairConfig(), static[0], folded)
            new = done.parameters.static_offset
            dynamic[row] = torch.where(new != alone.static_offset, new - static, own.dynamic_offset)[0]
            smoothed, faded = smoothed | done.smoothed, faded | done.faded
            rows.append(row)
    if not rows:
        return Repair(parameters, smoothed, faded)
    return Repair(replace(parameters, dynamic_offset=dynamic), smoothed, faded, tuple(rows))


def _nothing(head: HeadModel) -> tuple[ndarray, ndarray]:
    """No triangle smoothed, no vertex faded."""
    return np.zeros(len(head.faces), dtype=bool), np.zeros(head.n_vertices, dtype=bool)


def _opened(
    head: HeadModel,
    parameters: FitParameters,
    targets: list[FrameTarget],
    surface: SurfaceWeights,
    config: RepairConfig,
    rest: torch.Tensor,
    folds: Callable[[FitParameters], torch.Tensor],
) -> Repair:
    """Static offsets without folds.

    Args:
        rest: (V, 3), offsets that have none.
        folds: gives the folded triangles (F) of parameters.
    """
    faces = head.faces.cpu().numpy()
    edges = MeshGraph(faces, head.n_vertices).edges
    (smoothed, faded), stiffness = _nothing(head), np.zeros(len(faces))
    found, gradients = parameters.static_offset[0], None
    for number in range(config.rounds):
        folded = folds(parameters).cpu().numpy()
        if not folded.any():
            return Repair(parameters, smoothed, faded)
        smoothed |= folded
        stiffness[folded] = np.maximum(config.growth * stiffness[folded], config.stiffness)
        at_vertex = np.zeros(head.n_vertices)
        np.maximum.at(at_vertex, faces[folded], stiffness[folded, None] / config.growth)
        stiffness = np.maximum(stiffness, at_vertex[faces].max(axis=1))
        if gradients is None:
            gradients = hat_gradients(_without_offsets(head, parameters), faces)
        core = touched_vertices(faces, smoothed, head.n_vertices)
        free = grown(core, edges, config.rings + 2 * number)
        around = _Around(head, found, rest, core, free, gradients, stiffness, config)
        filled = replace(parameters, static_offset=around.solve()[None])
        parameters = replace(parameters, static_offset=around.solve(filled, targets, surface)[None])
    return _faded(head, parameters, smoothed, edges, rest, folds, config)


def said(head: HeadModel, done: Repair) -> str:
    """What was repaired, in words; a triangle counts for the first region that has it."""
    rest, parts = done.smoothed, list[str]()
    for name in (*GUARDED, "ears", "neck", "scalp", ""):
        inside = rest & head.face_mask(name).cpu().numpy() if name else rest
        rest = rest & ~inside
        if count := int(inside.sum()):
            noun = "" if parts else " triangle" if count == 1 else " triangles"
            parts.append(f"{count}{noun} of the {name or 'rest of the head'}")
    cause = f"dynamic offsets of {len(done.timesteps)} timestep" if done.timesteps else "static offset"
    cause += "s" if len(done.timesteps) != 1 else ""
    text = f"{', '.join(parts)} smoothed where {cause} turned them over"
    if done.faded.any():
        text += f"; {int(done.faded.sum())} vertices around them lost offsets"
    return text


def hat_gradients(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> Float[ndarray, "F 3 3"]:
    """Gradient of each corner's hat function, 1 there and 0 at the other two corners, on each triangle; 1/m."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    out = []
    for corner, one, two in ((a, b, c), (b, c, a), (c, a, b)):
        along = (two - one) / np.maximum(np.linalg.norm(two - one, axis=1, keepdims=True), 1e-12)
        height = (corner - one) - ((corner - one) * along).sum(axis=1, keepdims=True) * along
        size = np.linalg.norm(height, axis=1, keepdims=True)
        out.append(height / np.maximum(size, 1e-12) / np.maximum(size, _LOWEST))
    return np.stack(out, axis=1)


def gradient_energy(
    gradients: Float[ndarray, "F 3 3"], faces: Int[ndarray, "F 3"], weight: Float[ndarray, " F"], count: int
) -> sparse.csr_matrix:
    """(V, V) matrix K with x^T K x = sum over triangles of weight * |grad x|^2; `gradients` are `hat_gradients`."""
    values = weight[:, None, None] * np.einsum("fic,fjc->fij", gradients, gradients)
    rows, columns = np.broadcast_arrays(faces[:, :, None], faces[:, None, :])
    return sparse.csr_matrix((values.ravel(), (rows.ravel(), columns.ravel())), shape=(count, count))


def touched_vertices(faces: Int[ndarray, "F 3"], chosen: Bool[ndarray, " F"], count: int) -> Bool[ndarray, " V"]:
    """The vertices of some triangles."""
    out = np.zeros(count, dtype=bool)
    out[faces[chosen].ravel()] = True
    return out


def grown(where: Bool[ndarray, " V"], edges: Int[ndarray, "E 2"], rings: int) -> Bool[ndarray, " V"]:
    """Vertices within so many edges of some."""
    out = where.copy()
    for _ in range(rings):
        out[edges[out[edges].any(axis=1)].ravel()] = True
    return out


def _without_offsets(head: HeadModel, parameters: FitParameters) -> ndarray:
    """(V, 3) vertices of the first timestep without offsets."""
    first = parameters.of_frames([0]).without_dynamic_offset()
    bare = replace(first, static_offset=torch.zeros_like(first.static_offset))
    return bare.vertices(head)[0].detach().cpu().numpy()


class _Around:
    """The sum to minimise over the free vertices, all others at the found offsets."""

    def __init__(
        self,
        head: HeadModel,
        found: torch.Tensor,
        rest: torch.Tensor,
        core: ndarray,
        free: ndarray,
        gradients: ndarray,
        stiffness: ndarray,
        config: RepairConfig,
    ) -> None:
        count, faces = head.n_vertices, head.faces.cpu().numpy()
        near = free[faces].any(axis=1)
        faces, gradients, stiffness = faces[near], REFERENCE_EDGE * gradients[near], stiffness[near]
        distrusted = core[faces].any(axis=1)
        self.head, self.found, self.core, self.free = head, found, core, free
        self.start = found.detach().cpu().numpy()
        kept = gradient_energy(gradients, faces, config.smoothness * ~distrusted, count)
        kept = kept + sparse.diags(config.hold * ~core)
        plain = gradient_energy(gradients, faces, config.smoothness * distrusted + stiffness, count)
        self.right = kept @ self.start + plain @ rest.detach().cpu().numpy()
        self.regular = sparse.csr_matrix(kept + plain)

    def solve(
        self,
        parameters: FitParameters | None = None,
        targets: list[FrameTarget] | None = None,
        surface: SurfaceWeights | None = None,
    ) -> torch.Tensor:
        """Offsets (V, 3); with data, searched from `parameters`, where there are targets."""
        system = OffsetSystem.empty(self.found, self.regular)
        if parameters is not None and targets is not None and surface is not None:
            weights = replace(surface, vertex=surface.vertex * torch.as_tensor(self.core, device=surface.vertex.device))
            settings = OffsetConfig(landmark=0.0)
            add_data(system, self.head, parameters, targets, weights, settings, settings.cut_to)
        unknown, start = np.repeat(self.free, 3), self.start.reshape(-1)
        matrix = system.matrix().tocsr()[unknown]
        right = (system.right.cpu().numpy() + self.right).reshape(-1)[unknown]
        out = start.copy()
        out[unknown] = splu(matrix[:, unknown].tocsc()).solve(right - matrix[:, ~unknown] @ start[~unknown])
        solution = torch.as_tensor(out.reshape(-1, 3)).to(self.found)
        return capped(solution, by_region(self.head, CAP, DEFAULT_CAP))


def _faded(
    head: HeadModel,
    parameters: FitParameters,
    smoothed: ndarray,
    edges: ndarray,
    rest: torch.Tensor,
    folds: Callable[[FitParameters], torch.Tensor],
    config: RepairConfig,
) -> Repair:
    """Offsets that fade to `rest` around what is folded still in the regions `GUARDED`; everywhere in the worst case.

    `folds` as in `_opened`.
    """
    faces, guarded = head.faces.cpu().numpy(), head.face_mask(*GUARDED).cpu().numpy()
    offsets, core = parameters.static_offset, np.zeros(head.n_vertices, dtype=bool)
    keep = np.ones(head.n_vertices)
    for rings in (*config.fade, None):
        folded = guarded & folds(parameters).cpu().numpy()
        if not folded.any():
            break
        smoothed = smoothed | folded
        core = core | touched_vertices(faces, folded, head.n_vertices)
        # the corners of what is folded and their neighbours have no offset at all
        near = [grown(core, edges, 1)]
        for _ in range(rings or 0):
            near.append(grown(near[-1], edges, 1))
        share = np.sum(~np.stack(near), axis=0) / len(near) if rings is not None else np.zeros(head.n_vertices)
        keep = np.minimum(keep, share * share * (3 - 2 * share))
        factor = torch.as_tensor(keep, device=offsets.device, dtype=offsets.dtype)
        parameters = replace(parameters, static_offset=rest + (offsets - rest) * factor[None, :, None])
    return Repair(parameters, smoothed, keep < 1)
