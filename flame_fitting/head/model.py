"""A FLAME-format head: identity, expression, pose correctives and linear blend skinning.

Li et al., "Learning a model of facial shape and expression from 4D scans", ACM TOG 2017, equations 1 to 6. Head space:
metres, right-handed, +Y up, face toward +Z, +X the subject's left. Counts are read from the file, never assumed.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from flame_fitting.head.rotations import rotation_matrix


class HeadOutput(NamedTuple):
    """Posed head."""

    vertices: Float[Tensor, "T V 3"]
    joints: Float[Tensor, "T J 3"]


@dataclass
class HeadData:
    """The arrays of a FLAME-format file, as NumPy, validated."""

    name: str
    file_hash: str
    v_template: np.ndarray
    """(V, 3) metres."""
    faces: np.ndarray
    """(F, 3) vertex indices."""
    shapedirs: np.ndarray
    """(V, 3, S) metres for one standard deviation."""
    exprdirs: np.ndarray
    """(V, 3, E)."""
    posedirs: np.ndarray
    """(V, 3, (J-1) * 9)."""
    J_regressor: np.ndarray
    """(J, V)."""
    parents: list[int]
    weights: np.ndarray
    """(V, J)."""
    uv: np.ndarray | None = None
    """(VT, 2), origin at the picture's bottom left."""
    uv_faces: np.ndarray | None = None
    """(F, 3), row for row with `faces`."""
    regions: dict[str, np.ndarray] = field(default_factory=dict)
    """Vertex ids by region name."""
    texture: np.ndarray | None = None
    """(R, R, 3) uint8 sRGB, neutral albedo."""
    metadata: dict = field(default_factory=dict)
    identity: dict[str, str] = field(default_factory=dict)
    """What tells this model from others, see `head.loading.head_identity`; empty: name and file hash."""


class HeadModel(nn.Module):
    """Parameters in, vertices out. Holds no parameters itself; all arrays are buffers."""

    v_template: Tensor
    faces: Tensor
    shapedirs: Tensor
    exprdirs: Tensor
    eyelids: Tensor
    posedirs: Tensor
    J_regressor: Tensor
    weights: Tensor
    uv: Tensor
    uv_faces: Tensor

    def __init__(self, data: HeadData, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.name, self.file_hash = data.name, data.file_hash
        self.parents = list(data.parents)
        self.texture, self.metadata = data.texture, data.metadata
        self.identity = dict(data.identity) or {"name": data.name, "sha256": data.file_hash}
        vertex_count = len(data.v_template)

        def buffer(name: str, array: np.ndarray, kind: torch.dtype) -> None:
            self.register_buffer(name, torch.as_tensor(np.ascontiguousarray(array)).to(kind))

        buffer("v_template", data.v_template, dtype)
        buffer("faces", data.faces.astype(np.int64), torch.int64)
        buffer("shapedirs", data.shapedirs, dtype)
        buffer("exprdirs", data.exprdirs, dtype)
        buffer("eyelids", np.zeros((vertex_count, 3, 0)), dtype)
        buffer("posedirs", data.posedirs.reshape(vertex_count * 3, -1).T, dtype)
        buffer("J_regressor", data.J_regressor, dtype)
        buffer("weights", data.weights, dtype)
        has_uv = data.uv is not None and data.uv_faces is not None
        buffer("uv", data.uv if has_uv else np.zeros((0, 2)), dtype)  # type: ignore[arg-type]
        buffer("uv_faces", data.uv_faces if has_uv else np.zeros((0, 3)), torch.int64)  # type: ignore[arg-type]
        self._region_names = sorted(data.regions)
        for name in self._region_names:
            buffer(f"region_{name}", data.regions[name].astype(np.int64), torch.int64)

    @property
    def n_shape(self) -> int:
        """Number of identity components."""
        return self.shapedirs.shape[-1]

    @property
    def n_expr(self) -> int:
        """Number of expression components."""
        return self.exprdirs.shape[-1]

    @property
    def n_eyelids(self) -> int:
        """Number of blendshapes that shut its lids: 2 (left, right), or 0 (see `head.eyelids`)."""
        return self.eyelids.shape[-1]

    def set_eyelids(self, shapes: Float[np.ndarray, "V 3 L"]) -> None:
        """Gives it the blendshapes that shut its lids; none (L = 0) takes them away."""
        self.eyelids = torch.as_tensor(shapes).to(self.v_template)

    @property
    def n_vertices(self) -> int:
        """Number of vertices."""
        return self.v_template.shape[0]

    @property
    def has_uv(self) -> bool:
        """Whether the file has texture coordinates."""
        return self.uv.shape[0] > 0

    @property
    def regions(self) -> dict[str, Int[Tensor, " n"]]:
        """Vertex ids by region name."""
        return {name: getattr(self, f"region_{name}") for name in self._region_names}

    def region_mask(self, *names: str) -> Tensor:
        """Bool (V,): vertices in any of the named regions. A name the model lacks counts as empty."""
        mask = torch.zeros(self.n_vertices, dtype=torch.bool, device=self.v_template.device)
        regions = self.regions
        for name in names:
            if name in regions:
                mask[regions[name]] = True
        return mask

    def face_mask(self, *names: str) -> Tensor:
        """Bool (F,): triangles with all three vertices in one of the named regions."""
        mask = torch.zeros(self.faces.shape[0], dtype=torch.bool, device=self.faces.device)
        for name in names:
            mask |= self.region_mask(name)[self.faces].all(-1)
        return mask

    def forward(
        self,
        shape: Float[Tensor, " S"] | None = None,
        expr: Float[Tensor, "T E"] | None = None,
        rotation: Float[Tensor, "T 3"] | None = None,
        neck_pose: Float[Tensor, "T 3"] | None = None,
        jaw_pose: Float[Tensor, "T 3"] | None = None,
        eyes_pose: Float[Tensor, "T 6"] | None = None,
        translation: Float[Tensor, "T 3"] | None = None,
        static_offset: Float[Tensor, "T1 V 3"] | None = None,
        eyelids: Float[Tensor, "T L"] | None = None,
    ) -> HeadOutput:
        """Posed vertices (T, V, 3) and joints (T, J, 3), metres, head space.

        `shape` and `expr` may be shorter than the bases (leading components). Poses are axis-angle in radians;
        `eyes_pose` is left then right. `static_offset` (1 or T, V, 3) is added before joint regression, what `eyelids`
        (left then right; 0 open, 1 shut) move after it. What is None is zero.
        """
        given = (expr, rotation, neck_pose, jaw_pose, eyes_pose, translation, static_offset, eyelids)
        timed = [a for a in given if a is not None]
        steps = max((a.shape[0] for a in timed), default=1)
        rest = self.v_template
        if shape is not None:
            rest = rest + self.shapedirs[..., : shape.shape[0]] @ shape
        rest = rest[None]
        if expr is not None:
            rest = rest + torch.einsum("vce,te->tvc", self.exprdirs[..., : expr.shape[1]], expr)
        if static_offset is not None:
            rest = rest + static_offset
        rest = rest.expand(steps, -1, -1)

        zero = self.v_template.new_zeros(steps, 3)
        eyes = self.v_template.new_zeros(steps, 6) if eyes_pose is None else eyes_pose
        poses = [zero if p is None else p for p in (rotation, neck_pose, jaw_pose)] + [eyes[:, :3], eyes[:, 3:]]
        pose = torch.stack([p.expand(steps, 3) for p in poses], dim=1)
        rotations = rotation_matrix(pose)
        eye = torch.eye(3, dtype=rest.dtype, device=rest.device)
        feature = (rotations[:, 1:] - eye).reshape(steps, -1)
        posed = rest + (feature @ self.posedirs).reshape(steps, -1, 3)
        if eyelids is not None and eyelids.shape[1]:
            posed = posed + torch.einsum("vce,te->tvc", self.eyelids, eyelids)

        joints_rest = torch.einsum("jv,tvc->tjc", self.J_regressor, rest)
        world_rotation, world_joint = self._chain(rotations, joints_rest)
        # x -> R_j (x - joint_rest_j) + joint_posed_j, blended by the skinning weights
        shift = world_joint - torch.einsum("tjab,tjb->tja", world_rotation, joints_rest)
        # every vertex as every joint would carry it: one matrix product, cheaper than a 3 x 3 matrix for each vertex
        carried = (posed @ world_rotation.flatten(1, 2).transpose(1, 2)).unflatten(-1, (-1, 3)) + shift[:, None]
        vertices = (self.weights[..., None] * carried).sum(2)
        if translation is not None:
            vertices, world_joint = vertices + translation[:, None], world_joint + translation[:, None]
        return HeadOutput(vertices, world_joint)

    def _chain(self, rotations: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """World rotation (T, J, 3, 3) and place (T, J, 3) of every joint; siblings in a row are computed together."""
        world_rotation, world_joint = [rotations[:, :1]], [joints[:, :1]]
        of_joint = [(0, 0)]  # which entry of the lists, and which row of it
        for parent, start, stop in _siblings(self.parents):
            entry, row = of_joint[parent]
            rotation, place = world_rotation[entry][:, row : row + 1], world_joint[entry][:, row : row + 1]
            offset = joints[:, start:stop] - joints[:, parent : parent + 1]
            of_joint += [(len(world_joint), k) for k in range(stop - start)]
            world_joint.append(place + (rotation @ offset[..., None])[..., 0])
            world_rotation.append(rotation @ rotations[:, start:stop])
        return torch.cat(world_rotation, dim=1), torch.cat(world_joint, dim=1)


def _siblings(parents: list[int]) -> list[tuple[int, int, int]]:
    """Parent, first and one past the last of every run of joints with the same parent; the root left out."""
    runs: list[tuple[int, int, int]] = []
    for joint in range(1, len(parents)):
        if runs and runs[-1][0] == parents[joint] and runs[-1][2] == joint:
            runs[-1] = (parents[joint], runs[-1][1], joint + 1)
        else:
            runs.append((parents[joint], joint, joint + 1))
    return runs
