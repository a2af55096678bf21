"""Jacobians of posed vertices with respect to the fit's parameters, in closed form.

With the pose held, linear blend skinning is affine in shape and expression: dv = A_v D_v + sum_j w_vj dshift_j, where
A_v = sum_j w_vj R_j. Turns of joints and of the whole move points by cross products.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flame_fitting.fit.parameters import FitParameters, place
from flame_fitting.fit.solvers.columns import Columns
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import cross_matrix, left_jacobian, rotation_matrix

_JOINTS_OF = {"rotation": (0,), "neck_pose": (1,), "jaw_pose": (2,), "eyes_pose": (3, 4)}


@dataclass(eq=False)
class _Posed:
    """One timestep of the head, in head space."""

    joints: Float[Tensor, "J 3"]
    """At rest."""
    placed: Float[Tensor, "J 3"]
    """Posed."""
    local: Float[Tensor, "J 3 3"]
    world: Float[Tensor, "J 3 3"]
    carried: Float[Tensor, "J V 3"]
    """Each vertex as each joint alone would carry it, times its weight."""
    vertices: Float[Tensor, "V 3"]


class Linearizer:
    """Vertices and Jacobians of one head model for one set of columns; what does not change is computed once."""

    def __init__(self, head: HeadModel, columns: Columns, chosen: Int[Tensor, " n"] | None = None) -> None:
        """`chosen` names the vertices that are wanted, in that order; None takes all."""
        self.columns, self._parents, self._regressor = columns, head.parents, head.J_regressor
        rows: Tensor | slice = slice(None) if chosen is None else chosen
        self._rows = rows
        self._template, self._weights = head.v_template[rows], head.weights[rows]
        self._shapedirs, self._exprdirs = head.shapedirs[rows], head.exprdirs[rows]
        self._posedirs = head.posedirs.reshape(len(head.posedirs), -1, 3)[:, rows]
        self._joint_template = head.J_regressor @ head.v_template
        self._joint_shapedirs, self._joint_exprdirs = (
            (head.J_regressor @ basis.flatten(1)).reshape(-1, *basis.shape[1:])
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

    def vertices(self, parameters: FitParameters, timestep: int = 0) -> Float[Tensor, "V 3"]:
        """The chosen vertices of one timestep in the reference frame, m."""
        return place(parameters.placement, self._posed(parameters, timestep).vertices)

    def __call__(
        self, parameters: FitParameters, timestep: int = 0
    ) -> tuple[Float[Tensor, "V 3"], Float[Tensor, "V 3 P"]]:
        """The chosen vertices of one timestep in the reference frame (m) and their Jacobian."""
        posed = self._posed(parameters, timestep)
        placement = parameters.placement
        scaled = placement[6].exp() * rotation_matrix(placement[:3])
        vertices = place(placement, posed.vertices)
        of_parameter: dict[str, Tensor] = {}
        moving = {block.parameter for block in self.columns.blocks}
        if self._n_shape or self._n_expr:
            moved = self._moved_by_components(posed, scaled)
            of_parameter |= {"shape": moved[..., : self._n_shape], "expr": moved[..., self._n_shape :]}
        if "translation" in moving:
            of_parameter["translation"] = scaled.expand(len(vertices), 3, 3)
        if turning := [name for name in _JOINTS_OF if name in moving]:
            jacobian = left_jacobian(_joint_poses(parameters, timestep))
            blended = torch.einsum("vj,jab->vab", self._weights, posed.world)
            for name in turning:
                of_joints = [self._moved_by_joint(posed, j, jacobian[j], blended) for j in _JOINTS_OF[name]]
                of_parameter[name] = scaled @ torch.cat(of_joints, dim=-1)
        if "placement" in moving:
            centred = vertices - placement[3:6]
            turned = cross_columns(left_jacobian(placement[:3]), centred)
            identity = torch.eye(3).to(centred).expand(len(centred), 3, 3)
            of_parameter["placement"] = torch.cat([turned, identity, centred[..., None]], dim=-1)
        if "log_focal" in moving:  # moves what cameras show, and no vertex
            of_parameter["log_focal"] = vertices.new_zeros(*vertices.shape, 1)
        blocks = [of_parameter[block.parameter][..., block.coefficients] for block in self.columns.blocks]
        jacobian = torch.cat([vertices.new_zeros(*vertices.shape, 0), *blocks], dim=-1)
        if self.columns.metric:
            self._to_metric(parameters, timestep, jacobian)
        return vertices, jacobian

    def of_carried(
        self,
        parameters: FitParameters,
        timestep: int,
        carried: Float[Tensor, "B J"],
        vectors: Float[Tensor, "B 3"],
    ) -> Float[Tensor, "B 3 P"]:
        """Jacobian, in the reference frame, of vectors at rest that joints carry, each joint with its share of them,
        as skinning does without the scale."""
        pose, placed = _joint_poses(parameters, timestep), rotation_matrix(parameters.placement[:3])
        world = _along_chain(rotation_matrix(pose), self._parents)
        each = carried[..., None] * torch.einsum("jac,bc->bja", placed @ world, vectors)
        jacobian = left_jacobian(pose)
        out = vectors.new_zeros(*vectors.shape, self.columns.count)
        for block in self.columns.blocks:
            if block.parameter in _JOINTS_OF:
                turned = [
                    cross_columns(
                        placed @ (world[self._parents[j]] @ jacobian[j] if j else jacobian[0]),
                        each[:, self._subtree(j)].sum(1),
                    )
                    for j in _JOINTS_OF[block.parameter]
                ]
                out[..., block.columns] = torch.cat(turned, dim=-1)[..., block.coefficients]
            elif block.parameter == "placement":
                turned_all = cross_columns(left_jacobian(parameters.placement[:3]), each.sum(1))
                out[..., block.columns] = torch.cat([turned_all, turned_all.new_zeros(*vectors.shape, 4)], dim=-1)[
                    ..., block.coefficients
                ]
        return out

    def _subtree(self, j: int) -> list[int]:
        return [i for i in range(len(self._parents)) if _descends(self._parents, i, j)]

    def _to_metric(self, parameters: FitParameters, timestep: int, jacobian: Tensor) -> None:
        """Unknowns that the scale stretches, in the reference frame: held there, they shrink in head space with it."""
        scale = self.columns.slices().get("placement_scale")
        for block in self.columns.frame:
            if block.part.stretched:
                if scale is not None:
                    value = getattr(parameters, block.parameter)[timestep, block.coefficients]
                    jacobian[..., scale] -= jacobian[..., block.columns] @ value[:, None]
                jacobian[..., block.columns] /= self.columns.unit(block, parameters)

    def _posed(self, parameters: FitParameters, timestep: int) -> _Posed:
        shape, expr, offset = parameters.shape, parameters.expr[timestep], parameters.static_offset[0]
        if parameters.moves_vertices:
            offset = offset + parameters.dynamic_offset[timestep]
        rest = self._template + self._shapedirs @ shape + self._exprdirs @ expr + offset[self._rows]
        joints = self._joint_template + self._joint_shapedirs @ shape + self._joint_exprdirs @ expr
        joints = joints + self._regressor @ offset
        local = rotation_matrix(_joint_poses(parameters, timestep))
        world = _along_chain(local, self._parents)
        feature = (local[1:] - torch.eye(3).to(local)).reshape(-1)
        corrected = rest + torch.einsum("k,kvc->vc", feature, self._posedirs)
        placed = _placed(joints, world, self._parents)
        apart = (corrected - joints[:, None]) @ world.mT + placed[:, None]
        carried = self._weights.T[..., None] * apart
        return _Posed(joints, placed, local, world, carried, carried.sum(0) + parameters.translation[timestep])

    def _moved_by_components(self, posed: _Posed, scaled: Tensor) -> Tensor:
        """(V, 3, n) for shape and expression."""
        joints = self._joint_directions
        shift = scaled @ (_placed(joints, posed.world, self._parents) - posed.world @ joints)
        blended = scaled @ torch.einsum("vj,jab->vab", self._weights, posed.world)
        out = torch.bmm(blended, self._directions)
        return out.add_((self._weights @ shift.reshape(len(shift), -1)).reshape(out.shape))

    def _moved_by_joint(self, posed: _Posed, j: int, jacobian: Tensor, blended: Tensor) -> Tensor:
        """(V, 3, 3), head space: a turn w of joint j moves a vertex by w x (Y - P_j W), summed over the joint's subtree
        with its share of the weights W, plus what the pose correctives add."""
        subtree = self._subtree(j)
        share = self._weights[:, subtree].sum(1, keepdim=True)
        lever = posed.carried[subtree].sum(0) - share * posed.placed[j]
        if j == 0:
            return cross_columns(jacobian, lever)
        out = cross_columns(posed.world[self._parents[j]] @ jacobian, lever)
        turned = (cross_matrix(jacobian.T) @ posed.local[j]).reshape(3, 9)
        moved = torch.einsum("ak,kvc->vca", turned, self._posedirs[9 * (j - 1) : 9 * j])
        return out + blended @ moved


def cross_columns(axes: Float[Tensor, "3 K"], points: Float[Tensor, "V 3"]) -> Float[Tensor, "V 3 K"]:
    """axes[:, k] x points for every column k."""
    return -torch.einsum("vab,bk->vak", cross_matrix(points), axes)


def skinning_rotations(head: HeadModel, parameters: FitParameters, timestep: int = 0) -> Float[Tensor, "V 3 3"]:
    """A_v, scale of the placement included: how a rest-space displacement of a vertex turns into a posed one."""
    turns = joint_turns(parameters, head.parents, timestep)
    return parameters.placement[6].exp() * torch.einsum("vj,jab->vab", head.weights, turns)


def joint_turns(parameters: FitParameters, parents: list[int], timestep: int = 0) -> Float[Tensor, "J 3 3"]:
    """How the joints of one timestep are turned in the reference frame."""
    world = _along_chain(rotation_matrix(_joint_poses(parameters, timestep)), parents)
    return rotation_matrix(parameters.placement[:3]) @ world


def _joint_poses(parameters: FitParameters, timestep: int) -> Float[Tensor, "5 3"]:
    """Axis-angle of the joints of one timestep."""
    return torch.cat([getattr(parameters, name)[timestep].reshape(-1, 3) for name in _JOINTS_OF])


def _along_chain(local: Float[Tensor, "J 3 3"], parents: list[int]) -> Float[Tensor, "J 3 3"]:
    world = [local[0]]
    for j in range(1, len(parents)):
        world.append(world[parents[j]] @ local[j])
    return torch.stack(world)


def _placed(joints: Tensor, world: Float[Tensor, "J 3 3"], parents: list[int]) -> Tensor:
    """Posed joints (J, 3), or their derivatives (J, 3, n), for those at rest."""
    placed = [joints[0]]
    for j in range(1, len(parents)):
        placed.append(placed[parents[j]] + world[parents[j]] @ (joints[j] - joints[parents[j]]))
    return torch.stack(placed)


def _descends(parents: list[int], joint: int, ancestor: int) -> bool:
    while joint >= 0 and joint != ancestor:
        joint = parents[joint]
    return joint == ancestor
