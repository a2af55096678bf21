"""FLAME and each dialect's own convention, written out in NumPy for tests: independent of the program's head model."""

import json
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from flame_fitting.head.model import HeadData
from tests.toy import toy_head_data

S, E = 300, 100


def full_size_toy() -> HeadData:
    """The toy head with FLAME's numbers of coefficients; small ones, as those of late components are."""
    data = toy_head_data(n_shape=S, n_expr=E, seed=5)
    data.shapedirs = data.shapedirs * 0.2
    data.exprdirs = data.exprdirs * 0.2
    return data


def write_head(data: HeadData, path: Path) -> Path:
    """The toy as a FLAME-format .npz."""
    np.savez(
        path,
        v_template=data.v_template,
        shapedirs=np.concatenate([data.shapedirs, data.exprdirs], axis=2),
        n_shape=S,
        n_expr=E,
        posedirs=data.posedirs,
        J_regressor=data.J_regressor,
        weights=data.weights,
        kintree_table=np.array([data.parents, range(5)]),
        f=data.faces,
        metadata_json=np.array(json.dumps({})),
    )
    return path


def flame(
    data: HeadData, betas: np.ndarray, expr: np.ndarray, pose: np.ndarray, offset: np.ndarray | None = None
) -> np.ndarray:
    """Vertices (V, 3) of one timestep; pose (5, 3) axis-angle: root, neck, jaw, left eye, right eye."""
    rest = data.v_template + data.shapedirs[..., : len(betas)] @ betas + data.exprdirs[..., : len(expr)] @ expr
    if offset is not None:
        rest = rest + offset
    joints = data.J_regressor @ rest
    turns = Rotation.from_rotvec(pose).as_matrix()
    posed = rest + data.posedirs @ (turns[1:] - np.eye(3)).reshape(-1)
    chain = [_about(turns[0], joints[0])]
    for joint in range(1, 5):
        chain.append(chain[data.parents[joint]] @ _about(turns[joint], joints[joint]))
    blended = np.einsum("vj,jab->vab", data.weights, np.stack(chain))
    return np.einsum("vab,vb->va", blended[:, :3, :3], posed) + blended[:, :3, 3]


def rows_to_matrix(six: np.ndarray) -> np.ndarray:
    """PyTorch3D's six numbers: the first two rows."""
    a, b = six[:3], six[3:]
    a = a / np.linalg.norm(a)
    b = b - a * (a @ b)
    b = b / np.linalg.norm(b)
    return np.stack([a, b, np.cross(a, b)])


def vector(six: np.ndarray) -> np.ndarray:
    """Their axis-angle."""
    return Rotation.from_matrix(rows_to_matrix(six)).as_rotvec()


def nersemble_vertices(data: HeadData, file: dict[str, np.ndarray], t: int) -> np.ndarray:
    """scale * R_xyz(rotation) @ FLAME(no global rotation) + translation."""
    eyes = file["eyes"][t].reshape(2, 3)
    pose = np.stack([np.zeros(3), file["neck"][t], file["jaw"][t], *eyes])
    x, y, z = file["rotation"][t].astype(float)
    turn = (
        Rotation.from_rotvec([x, 0, 0]) * Rotation.from_rotvec([0, y, 0]) * Rotation.from_rotvec([0, 0, z])
    ).as_matrix()
    posed = flame(data, file["shape"][0], file["expression"][t], pose)
    return file["scale"].item() * posed @ turn.T + file["translation"][t]


def frame_vertices(data: HeadData, flame_part: dict[str, np.ndarray]) -> np.ndarray:
    """The canonical mesh of a .frame file, before R and t."""
    eyes = flame_part["eyes"][0].reshape(2, 6)
    neck = vector(flame_part["neck"][0]) if "neck" in flame_part else np.zeros(3)
    pose = np.stack([np.zeros(3), neck, vector(flame_part["jaw"][0]), vector(eyes[0]), vector(eyes[1])])
    return flame(data, flame_part["shape"][0], flame_part["exp"][0], pose)


def pixel3dmm_vertices(data: HeadData, flame_part: dict[str, np.ndarray]) -> np.ndarray:
    """R @ canonical + t."""
    return frame_vertices(data, flame_part) @ rows_to_matrix(flame_part["R"][0]).T + flame_part["t"][0]


def head_tracker_vertices(data: HeadData, file: dict[str, np.ndarray]) -> np.ndarray:
    """FLAME with the head pose as its global rotation."""
    eyes = file["eye_pose"][0].reshape(2, 3)
    pose = np.stack([file["head_pose"][0], file["neck_pose"][0], file["jaw_pose"][0], *eyes])
    return flame(data, file["shape"][0], file["exp"][0], pose)


def vhap_vertices(data: HeadData, file: dict[str, np.ndarray], t: int) -> np.ndarray:
    """FLAME with global rotation, then the translation, then a scale where there is one."""
    pose = np.stack(
        [file["rotation"][t], file["neck_pose"][t], file["jaw_pose"][t], *file["eyes_pose"][t].reshape(2, 3)]
    )
    offset = file["static_offset"][0] if "static_offset" in file else None
    posed = flame(data, file["shape"], file["expr"][t], pose, offset) + file["translation"][t]
    return posed * (file["scale"].item() if "scale" in file else 1.0)


def _about(turn: np.ndarray, center: np.ndarray) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = turn, center - turn @ center
    return out
