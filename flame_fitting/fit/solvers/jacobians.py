"""Jacobians of posed vertices with respect to the fit's parameters, in closed form.

With the pose held, linear blend skinning is affine in shape and expression: dv = A_v D_v + sum_j w_vj dshift_j, where
A_v = sum_j w_vj R_j. Eyelids move no joint: dv = A_v D_v. Turns of joints and of the whole move points by cross
products.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.fit.solvers.skin import Points, Vertices
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import cross_matrix, left_jacobian, rotation_matrix

_JOINTS_OF = {"rotation": (0,), "neck_pose": (1,), "jaw_pose": (2,), "eyes_pose": (3, 4)}
_TURN = (*_JOINTS_OF, "placement")

AT_ONCE = 8
"""Timesteps that are posed together: what a processor's cache holds of them."""


@dataclass(eq=False)
class _Posed:
    """T timesteps of the head, in head space."""

    placed: Float[Tensor, "T J 3"]
    """Joints, posed."""
    local: Float[Tensor, "T J 3 3"]
    world: Float[Tensor, "T J 3 3"]
    carried: Float[Tensor, "T A N 3"]
    """Each vertex as each joint alone would carry it, times its weight."""
    vertices: Float[Tensor, "T N 3"]


class Linearizer:
    """Vertices and Jacobians of one head model for one set of columns; what does not change is computed once."""

    def __init__(self, head: HeadModel, columns: Columns, chosen: Int[Tensor, " n"] | Points | None = None) -> None:
        """`chosen` names the vertices that are wanted, in that order; None takes all. Points stand for vertices in
        all that follows."""
        self.columns, self._parents, self._regressor = columns, head.parents, head.J_regressor
        self._skin = skin = chosen if isinstance(chosen, Points) else Vertices(head, chosen)
        self._template, self._shapedirs, self._exprdirs = map(skin.of, (head.v_template, head.shapedirs, head.exprdirs))
        self._eyelids = skin.of(head.eyelids)
        self._posedirs = skin.of(head.posedirs.T.unflatten(0, (-1, 3)))
        self._joint_template = head.J_regressor @ head.v_template
        self._joint_shapedirs, self._joint_exprdirs = (
            (head.J_regressor @ basis.flatten(1)).reshape(len(head.parents), *basis.shape[1:])
            for basis in (head.shapedirs, head.exprdirs)
        )
        self._n_shape, self._n_expr = columns.coefficients("shape"), columns.coefficients("expr")
        self._directions, self._joint_directions = (
            torch.cat([shape[..., : self._n_shape], expr[..., : self._n_expr]], dim=-1).contiguous()
            for shape, expr in (
                (self._shapedirs, self._exprdirs),
                (self._joint_shapedirs, self._joint_exprdirs),
            )
        )

    def vertices(self, parameters: FitParameters, timestep: int = 0) -> Float[Tensor, "N 3"]:
        """The chosen vertices of one timestep in the reference frame, m."""
        return self.vertices_of(parameters, slice(timestep, timestep + 1))[0]

    def vertices_of(self, parameters: FitParameters, rows: slice) -> Float[Tensor, "T N 3"]:
        """The same of several."""
        return self._in_reference(parameters, self._posed(parameters, rows))

    def __call__(
        self, parameters: FitParameters, timestep: int = 0
    ) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 3 P"]]:
        """The chosen vertices of one timestep in the reference frame (m) and their Jacobian."""
        vertices, jacobian = self.of(parameters, slice(timestep, timestep + 1))
        return vertices[0], jacobian[0]

    def of(self, parameters: FitParameters, rows: slice) -> tuple[Float[Tensor, "T N 3"], Float[Tensor, "T N 3 P"]]:
        """The same of several timesteps, each with the unknowns of its own."""
        posed = self._posed(parameters, rows)
        placement, total = parameters.placement, self._skin.total
        scaled = placement[6].exp() * rotation_matrix(placement[:3])
        vertices = self._in_reference(parameters, posed)
        of_parameter: dict[str, Tensor] = {}
        moving = {block.parameter for block in self.columns.blocks}
        turning = self._skin.turning(posed.world)
        if self._n_shape or self._n_expr:
            moved = self._moved_by_components(posed, turning, scaled)
            of_parameter |= {"shape": moved[..., : self._n_shape], "expr": moved[..., self._n_shape :]}
        if "eyelids" in moving:
            of_parameter["eyelids"] = scaled @ turning @ self._eyelids
        if "translation" in moving:
            of_parameter["translation"] = (total[:, None, None] * scaled).expand(*vertices.shape, 3)
        if names := [name for name in _JOINTS_OF if name in moving]:
            jacobian = left_jacobian(_joint_poses(parameters, rows))
            for name in names:
                of_joints = [self._moved_by_joint(posed, j, jacobian[:, j], turning) for j in _JOINTS_OF[name]]
                of_parameter[name] = (torch.cat(of_joints, dim=-2) @ scaled.T).mT
        if "placement" in moving:
            centred = vertices - total[:, None] * placement[3:6]
            turned = cross_columns(left_jacobian(placement[:3]), centred)
            shifted = (total[:, None, None] * torch.eye(3).to(centred)).expand(*centred.shape, 3)
            of_parameter["placement"] = torch.cat([turned, shifted, centred[..., None]], dim=-1)
        if "log_focal" in moving:  # moves what cameras show, and no vertex
            of_parameter["log_focal"] = vertices.new_zeros(*vertices.shape, 1)
        blocks = [of_parameter[block.parameter][..., block.coefficients] for block in self.columns.blocks]
        if self.columns.metric:
            blocks = self._in_metric(parameters, rows, blocks)
        return vertices, torch.cat([vertices.new_zeros(*vertices.shape, 0), *blocks], dim=-1)

    @cached_property
    def turning(self) -> Int[Tensor, " Q"]:
        """The columns that turn directions, too."""
        own = [torch.arange(b.columns.start, b.columns.stop) for b in self.columns.blocks if b.parameter in _TURN]
        return torch.cat([torch.arange(0), *own]).to(self._regressor.device)

    def of_carried(
        self,
        parameters: FitParameters,
        rows: slice,
        carried: Float[Tensor, "B J"],
        vectors: Float[Tensor, "B 3"],
    ) -> Float[Tensor, "T B 3 Q"]:
        """Jacobian, in the reference frame, of vectors at rest that joints carry, each joint with its share of them,
        as skinning does without the scale; by the columns `turning`, since no other moves them."""
        pose, placed = _joint_poses(parameters, rows), rotation_matrix(parameters.placement[:3])
        world = _along_chain(rotation_matrix(pose), self._parents)
        each = carried.T[..., None] * (vectors @ (placed @ world).mT)
        jacobian = left_jacobian(pose)
        out = [vectors.new_zeros(len(pose), *vectors.shape, 0)]
        for block in self.columns.blocks:
            if block.parameter in _JOINTS_OF:
                turned = [
                    cross_columns(
                        placed @ (world[:, self._parents[j]] @ jacobian[:, j] if j else jacobian[:, 0]),
                        each[:, self._subtree(j)].sum(1),
                    )
                    for j in _JOINTS_OF[block.parameter]
                ]
                out.append(torch.cat(turned, dim=-1)[..., block.coefficients])
            elif block.parameter == "placement":
                turned_all = cross_columns(left_jacobian(parameters.placement[:3]), each.sum(1))
                whole = torch.cat([turned_all, turned_all.new_zeros(*turned_all.shape[:-1], 4)], dim=-1)
                out.append(whole[..., block.coefficients])
        return torch.cat(out, dim=-1)

    def _subtree(self, j: int) -> list[int]:
        return [i for i in range(len(self._parents)) if _descends(self._parents, i, j)]

    def _in_metric(self, parameters: FitParameters, rows: slice, moved: list[Tensor]) -> list[Tensor]:
        """Unknowns that the scale stretches, in the reference frame: held there, they shrink in head space with it."""
        out, blocks = list(moved), self.columns.blocks
        scale = next((n for n, block in enumerate(blocks) if block.part.name == "placement_scale"), None)
        for n, block in enumerate(blocks):
            if block.part.stretched:
                if scale is not None:
                    value = getattr(parameters, block.parameter)[rows, block.coefficients]
                    out[scale] = out[scale] - moved[n] @ value[:, None, :, None]
                out[n] = moved[n] / self.columns.unit(block, parameters)
        return out

    def _in_reference(self, parameters: FitParameters, posed: _Posed) -> Tensor:
        placement = parameters.placement
        turned = placement[6].exp() * posed.vertices @ rotation_matrix(placement[:3]).T
        return turned + self._skin.total[:, None] * placement[3:6]

    def _at_rest(self, parameters: FitParameters, rows: slice) -> tuple[Float[Tensor, "T N C"], Float[Tensor, "T J 3"]]:
        """Without the pose: vertices, and joints."""
        shape, expr, offset = parameters.shape, parameters.expr[rows], parameters.static_offset[0]
        rest = self._template + self._shapedirs @ shape + self._skin.of(offset)
        joints = self._joint_template + self._joint_shapedirs @ shape + self._regressor @ offset
        rest, joints = rest + _combined(expr, self._exprdirs), joints + _combined(expr, self._joint_exprdirs)
        if self._eyelids.shape[-1]:
            rest = rest + _combined(parameters.eyelids[rows], self._eyelids)
        if parameters.moves_vertices:
            offsets = parameters.dynamic_offset[rows]
            rest = rest + torch.stack([self._skin.of(offset) for offset in offsets])
            joints = joints + self._regressor @ offsets
        return rest, joints

    def _posed(self, parameters: FitParameters, rows: slice) -> _Posed:
        rest, joints = self._at_rest(parameters, rows)
        local = rotation_matrix(_joint_poses(parameters, rows))
        world = _along_chain(local, self._parents)
        feature = (local[:, 1:] - torch.eye(3).to(local)).flatten(1)
        rest = rest + _combined(feature, self._posedirs)
        placed = _placed(joints, world, self._parents)
        shift = (placed - (world @ joints[..., None])[..., 0])[:, self._skin.joints]
        carried = self._skin.carried(rest, world, shift)
        moved = self._skin.total[:, None] * parameters.translation[rows, None]
        return _Posed(placed, local, world, carried, carried.sum(1) + moved)

    def _moved_by_components(self, posed: _Posed, turning: Tensor, scaled: Tensor) -> Tensor:
        """(T, N, 3, n) for shape and expression."""
        joints = self._joint_directions.expand(len(posed.world), -1, -1, -1)
        shift = scaled @ (_placed(joints, posed.world, self._parents) - posed.world @ joints)[:, self._skin.joints]
        return self._skin.moved(scaled @ turning, self._directions, shift)

    def _moved_by_joint(self, posed: _Posed, j: int, jacobian: Tensor, turning: Tensor) -> Tensor:
        """(T, N, 3 turns, 3), head space: a turn w of joint j moves a vertex by w x (Y - P_j W), summed over the
        joint's subtree with its share of the weights W, plus what the pose correctives add."""
        below = set(self._subtree(j))
        subtree = [number for number, joint in enumerate(self._skin.joints) if joint in below]
        share = self._skin.weights[:, subtree].sum(1, keepdim=True)
        lever = posed.carried[:, subtree].sum(1) - share * posed.placed[:, j, None]
        if j == 0:
            return cross_columns(jacobian, lever).mT
        out = cross_columns(posed.world[:, self._parents[j]] @ jacobian, lever).mT
        turned = (cross_matrix(jacobian.mT) @ posed.local[:, j, None]).flatten(2)
        moved = _combined(turned.flatten(0, 1), self._posedirs[..., 9 * (j - 1) : 9 * j])
        return out + moved.unflatten(0, (-1, 3)).transpose(1, 2) @ turning.mT


def batches(timesteps: int, most: int) -> list[slice]:
    """All timesteps, some at once."""
    return [slice(start, min(start + most, timesteps)) for start in range(0, timesteps, most)]


def cross_columns(axes: Float[Tensor, "*T1 3 K"], points: Float[Tensor, "*T N 3"]) -> Float[Tensor, "*T N 3 K"]:
    """axes[:, k] x points for every column k."""
    each = axes.mT.expand(*points.shape[:-2], -1, 3)
    return torch.linalg.cross(each[..., None, :, :], points[..., None, :]).mT


def _combined(coefficients: Float[Tensor, "T K"], basis: Float[Tensor, "N C K"]) -> Float[Tensor, "T N C"]:
    return (coefficients @ basis.flatten(0, 1).T).unflatten(1, basis.shape[:2])


def skinning_rotations(head: HeadModel, parameters: FitParameters, timestep: int = 0) -> Float[Tensor, "V 3 3"]:
    """A_v, scale of the placement included: how a rest-space displacement of a vertex turns into a posed one."""
    turns = joint_turns(parameters, head.parents, timestep)
    return parameters.placement[6].exp() * torch.einsum("vj,jab->vab", head.weights, turns)


def joint_turns(parameters: FitParameters, parents: list[int], timestep: int = 0) -> Float[Tensor, "J 3 3"]:
    """How the joints of one timestep are turned in the reference frame."""
    return joint_turns_of(parameters, parents, slice(timestep, timestep + 1))[0]


def joint_turns_of(parameters: FitParameters, parents: list[int], rows: slice) -> Float[Tensor, "T J 3 3"]:
    """The same of several timesteps."""
    world = _along_chain(rotation_matrix(_joint_poses(parameters, rows)), parents)
    return rotation_matrix(parameters.placement[:3]) @ world


def _joint_poses(parameters: FitParameters, rows: slice) -> Float[Tensor, "T 5 3"]:
    """Axis-angle of the joints of some timesteps."""
    return torch.cat([getattr(parameters, name)[rows].unflatten(1, (-1, 3)) for name in _JOINTS_OF], dim=1)


def _along_chain(local: Float[Tensor, "T J 3 3"], parents: list[int]) -> Float[Tensor, "T J 3 3"]:
    world = [local[:, 0]]
    for j in range(1, len(parents)):
        world.append(world[parents[j]] @ local[:, j])
    return torch.stack(world, dim=1)


def _placed(joints: Tensor, world: Float[Tensor, "T J 3 3"], parents: list[int]) -> Tensor:
    """Posed joints (T, J, 3), or their derivatives (T, J, 3, n), for those at rest."""
    columns = joints if joints.ndim == 4 else joints[..., None]
    placed = [columns[:, 0]]
    for j in range(1, len(parents)):
        placed.append(placed[parents[j]] + world[:, parents[j]] @ (columns[:, j] - columns[:, parents[j]]))
    return torch.stack(placed, dim=1).reshape(joints.shape)


def _descends(parents: list[int], joint: int, ancestor: int) -> bool:
    while joint >= 0 and joint != ancestor:
        joint = parents[joint]
    return joint == ancestor
