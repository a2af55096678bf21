"""Jacobians of posed vertices with respect to the fit's parameters, in closed form.

With the pose held, linear blend skinning is affine in shape and expression: dv = A_v D_v + sum_j w_vj dshift_j, where
A_v = sum_j w_vj R_j. Turns of joints and of the whole move points by cross products.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flame_fitting.fit.parameters import POSES, FitParameters, place
from flame_fitting.head.model import HeadModel
from flame_fitting.head.rotations import cross_matrix, left_jacobian, rotation_matrix

_JOINTS_OF = {"rotation": (0,), "neck_pose": (1,), "jaw_pose": (2,), "eyes_pose": (3, 4)}
_POSE_SIZE = {"rotation": 3, "translation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6}


@dataclass(frozen=True)
class Columns:
    """Which parameters a solver moves, and the column of each in the Jacobian of one timestep."""

    placement: bool = True
    n_shape: int = 0
    n_expr: int = 0
    poses: tuple[str, ...] = ()
    scale: bool = True
    """Whether the scale moves with the placement."""

    def slices(self) -> dict[str, slice]:
        """Column range of each moved parameter in one timestep's Jacobian."""
        sizes = {"placement": (6 + self.scale) * self.placement, "shape": self.n_shape, "expr": self.n_expr}
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


class Linearizer:
    """Jacobians of one head model with respect to one set of columns; what does not change is computed once."""

    def __init__(self, head: HeadModel, columns: Columns) -> None:
        self.head, self.columns = head, columns
        self._directions = torch.cat(
            [head.shapedirs[..., : columns.n_shape], head.exprdirs[..., : columns.n_expr]], dim=-1
        ).contiguous()
        flat = self._directions.reshape(head.n_vertices, -1)
        self._joint_directions = (head.J_regressor @ flat).reshape(len(head.parents), *self._directions.shape[1:])

    def __call__(
        self, parameters: FitParameters, timestep: int = 0
    ) -> tuple[Float[Tensor, "V 3"], Float[Tensor, "V 3 P"]]:
        """Vertices of one timestep in the reference frame (m) and their Jacobian."""
        head, columns, blocks = self.head, self.columns, {}
        scaled_rotation = parameters.placement[6].exp() * rotation_matrix(parameters.placement[:3])
        now = {name: value[timestep : timestep + 1] for name, value in parameters.items().items() if name in POSES}
        rest = {
            "shape": parameters.shape,
            "expr": parameters.expr[timestep : timestep + 1],
            "static_offset": parameters.static_offset,
        }
        if columns.n_shape or columns.n_expr:
            moved = self._posed_directions(now, scaled_rotation)
            blocks["shape"], blocks["expr"] = moved[..., : columns.n_shape], moved[..., columns.n_shape :]
        names = [name for name in POSES if name in columns.poses]
        local, pose_blocks = _pose_jacobian(head, rest, now, names)
        blocks |= {name: scaled_rotation @ block for name, block in pose_blocks.items()}
        vertices = place(parameters.placement, local)
        if columns.placement:
            centred = vertices - parameters.placement[3:6]
            turned = cross_columns(left_jacobian(parameters.placement[:3]), centred)
            identity = torch.eye(3).to(centred).expand(len(centred), 3, 3)
            blocks["placement"] = torch.cat([turned, identity, centred[..., None]], dim=-1)[..., : 6 + columns.scale]
        slices = columns.slices()
        if not slices:
            return vertices, local.new_zeros(*local.shape, 0)
        return vertices, torch.cat([blocks[name] for name in slices], dim=-1)

    def _posed_directions(self, now: dict[str, Tensor], scaled_rotation: Tensor) -> Tensor:
        head = self.head
        rotations = _joint_rotations(head, now)
        joints = self._joint_directions
        posed_joints = [joints[0]]
        for j in range(1, len(head.parents)):
            parent = head.parents[j]
            posed_joints.append(posed_joints[parent] + rotations[parent] @ (joints[j] - joints[parent]))
        shift = scaled_rotation @ (torch.stack(posed_joints) - rotations @ joints)
        blended = scaled_rotation @ torch.einsum("vj,jab->vab", head.weights, rotations)
        out = torch.bmm(blended, self._directions)
        return out.add_((head.weights @ shift.reshape(len(rotations), -1)).reshape(out.shape))


def cross_columns(axes: Float[Tensor, "3 K"], points: Float[Tensor, "V 3"]) -> Float[Tensor, "V 3 K"]:
    """axes[:, k] x points for every column k."""
    return -torch.einsum("vab,bk->vak", cross_matrix(points), axes)


def _pose_jacobian(
    head: HeadModel, rest: dict[str, Tensor], now: dict[str, Tensor], names: list[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Head-space vertices (V, 3) and (V, 3, size) for each pose.

    A turn w of joint j moves a vertex by w x (Y - P_j W), summed over the joint's subtree with its share of the
    weights W, plus what the pose correctives add.
    """
    unposed = head(**rest).vertices[0]  # correctives vanish at zero pose
    joints = head.J_regressor @ unposed
    pose = _joint_poses(now)
    local, world = rotation_matrix(pose), _joint_rotations(head, now)
    eye = torch.eye(3).to(local)
    corrected = unposed + ((local[1:] - eye).reshape(-1) @ head.posedirs).reshape(-1, 3)
    placed = [joints[0]]
    for j in range(1, len(head.parents)):
        parent = head.parents[j]
        placed.append(placed[parent] + world[parent] @ (joints[j] - joints[parent]))
    # (J, V, 3): each vertex as each joint alone would carry it
    carried = torch.stack([(corrected - joints[j]) @ world[j].T + placed[j] for j in range(len(head.parents))])
    weighted = head.weights.T[..., None] * carried
    blended = torch.einsum("vj,jab->vab", head.weights, world)
    jacobian = left_jacobian(pose)

    def of_joint(j: int) -> Tensor:
        subtree = [i for i in range(len(head.parents)) if _descends(head.parents, i, j)]
        share = head.weights[:, subtree].sum(1, keepdim=True)
        lever = weighted[subtree].sum(0) - share * placed[j]
        parent = world[head.parents[j]] if j > 0 else eye
        out = cross_columns(parent @ jacobian[j], lever)
        if j > 0:
            turned = (cross_matrix(jacobian[j].T) @ local[j]).reshape(3, 9)
            moved = (turned @ head.posedirs[9 * (j - 1) : 9 * j]).reshape(3, -1, 3)
            out = out + blended @ moved.permute(1, 2, 0)
        return out

    blocks = {}
    for name in names:
        if name == "translation":
            blocks[name] = eye.expand(len(unposed), 3, 3)
        else:
            blocks[name] = torch.cat([of_joint(j) for j in _JOINTS_OF[name]], dim=-1)
    return weighted.sum(0) + now["translation"], blocks


def _descends(parents: list[int], joint: int, ancestor: int) -> bool:
    while joint >= 0 and joint != ancestor:
        joint = parents[joint]
    return joint == ancestor


def linearize(
    head: HeadModel, parameters: FitParameters, columns: Columns, timestep: int = 0
) -> tuple[Float[Tensor, "V 3"], Float[Tensor, "V 3 P"]]:
    """`Linearizer` for a single use."""
    return Linearizer(head, columns)(parameters, timestep)


def skinning_rotations(head: HeadModel, parameters: FitParameters, timestep: int = 0) -> Float[Tensor, "V 3 3"]:
    """A_v, scale of the placement included: how a rest-space displacement of a vertex turns into a posed one."""
    now = {name: value[timestep : timestep + 1] for name, value in parameters.items().items() if name in POSES}
    rotation = parameters.placement[6].exp() * rotation_matrix(parameters.placement[:3])
    return rotation @ torch.einsum("vj,jab->vab", head.weights, _joint_rotations(head, now))


def _joint_poses(now: dict[str, Tensor]) -> Tensor:
    """(5, 3) axis-angle of the joints of one timestep."""
    eyes = now["eyes_pose"]
    return torch.cat([now["rotation"], now["neck_pose"], now["jaw_pose"], eyes[:, :3], eyes[:, 3:]])


def _joint_rotations(head: HeadModel, now: dict[str, Tensor]) -> Tensor:
    local = rotation_matrix(_joint_poses(now))
    world = [local[0]]
    for j in range(1, len(head.parents)):
        world.append(world[head.parents[j]] @ local[j])
    return torch.stack(world)
