"""Jacobians of posed vertices with respect to the fit's parameters, in closed form where the model is linear.

With the pose held, linear blend skinning is affine in shape and expression: dv = A_v D_v + sum_j w_vj dshift_j, where
A_v = sum_j w_vj R_j. Only the few pose and placement columns go through forward-mode differentiation.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fit.parameters import POSES, FitParameters, place
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import rotation_matrix

_POSE_SIZE = {"rotation": 3, "translation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6}


@dataclass(frozen=True)
class Columns:
    """Which parameters a solver moves, and the column of each in the Jacobian of one timestep."""

    placement: bool = True
    n_shape: int = 0
    n_expr: int = 0
    poses: tuple[str, ...] = ()

    def slices(self) -> dict[str, slice]:
        """Column range of each moved parameter in one timestep's Jacobian."""
        sizes = {"placement": 7 if self.placement else 0, "shape": self.n_shape, "expr": self.n_expr}
        sizes |= {name: _POSE_SIZE[name] for name in POSES if name in self.poses}
        out, start = {}, 0
        for name, size in sizes.items():
            if size:
                out[name] = slice(start, start + size)
                start += size
        return out

    @property
    def count(self) -> int:
        """Columns of one timestep."""
        return max((s.stop for s in self.slices().values()), default=0)


def linearize(
    head: HeadModel, parameters: FitParameters, columns: Columns, timestep: int = 0
) -> tuple[Float[Tensor, "V 3"], Float[Tensor, "V 3 P"]]:
    """Vertices of one timestep in the reference frame (m) and their Jacobian with respect to `columns`."""
    slices, blocks = columns.slices(), {}
    scaled_rotation = parameters.placement[6].exp() * rotation_matrix(parameters.placement[:3])
    now = {name: value[timestep : timestep + 1] for name, value in parameters.items().items() if name in POSES}
    rest = {
        "shape": parameters.shape,
        "expr": parameters.expr[timestep : timestep + 1],
        "static_offset": parameters.static_offset,
    }

    if columns.n_shape or columns.n_expr:
        directions = torch.cat([head.shapedirs[..., : columns.n_shape], head.exprdirs[..., : columns.n_expr]], dim=-1)
        moved = scaled_rotation @ _posed_directions(head, directions, now)
        blocks["shape"], blocks["expr"] = moved[..., : columns.n_shape], moved[..., columns.n_shape :]

    pose_names = [name for name in POSES if name in columns.poses]
    if pose_names:

        def posed(vector: Tensor) -> Tensor:
            parts = dict(zip(pose_names, vector.split([_POSE_SIZE[n] for n in pose_names]), strict=True))
            return head(**rest, **(now | {name: part[None] for name, part in parts.items()})).vertices[0]

        flat = torch.cat([now[name][0] for name in pose_names])
        jacobian = scaled_rotation @ torch.func.jacfwd(posed)(flat)
        for name, block in zip(pose_names, jacobian.split([_POSE_SIZE[n] for n in pose_names], dim=-1), strict=True):
            blocks[name] = block

    local = head(**rest, **now).vertices[0]
    if columns.placement:
        blocks["placement"] = torch.func.jacfwd(lambda p: place(p, local))(parameters.placement)
    if not slices:
        return place(parameters.placement, local), local.new_zeros(*local.shape, 0)
    return place(parameters.placement, local), torch.cat([blocks[name] for name in slices], dim=-1)


def skinning_rotations(head: HeadModel, parameters: FitParameters, timestep: int = 0) -> Float[Tensor, "V 3 3"]:
    """A_v, scale of the placement included: how a rest-space displacement of a vertex turns into a posed one."""
    now = {name: value[timestep : timestep + 1] for name, value in parameters.items().items() if name in POSES}
    rotation = parameters.placement[6].exp() * rotation_matrix(parameters.placement[:3])
    return rotation @ torch.einsum("vj,jab->vab", head.weights, _joint_rotations(head, now))


def _joint_rotations(head: HeadModel, now: dict[str, Tensor]) -> Tensor:
    poses = [now["rotation"], now["neck_pose"], now["jaw_pose"], now["eyes_pose"][:, :3], now["eyes_pose"][:, 3:]]
    local = rotation_matrix(torch.cat(poses))
    world = [local[0]]
    for j in range(1, len(head.parents)):
        world.append(world[head.parents[j]] @ local[j])
    return torch.stack(world)


def _posed_directions(head: HeadModel, directions: Tensor, now: dict[str, Tensor]) -> Tensor:
    rotations = _joint_rotations(head, now)
    joint_directions = torch.einsum("jv,vck->jck", head.J_regressor, directions)
    posed_joints = [joint_directions[0]]
    for j in range(1, len(head.parents)):
        parent = head.parents[j]
        posed_joints.append(posed_joints[parent] + rotations[parent] @ (joint_directions[j] - joint_directions[parent]))
    shift = torch.stack(posed_joints) - rotations @ joint_directions
    blended = torch.einsum("vj,jab->vab", head.weights, rotations)
    return blended @ directions + torch.einsum("vj,jck->vck", head.weights, shift)
