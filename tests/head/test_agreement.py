"""The forward pass against two independent implementations of FLAME on one file: PyPI `smplx` and `body-models`."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flame_fitting.head.flame_files import read_flame
from flame_fitting.head.model import HeadModel
from flame_fitting.head.pickle_values import SparseColumns
from flame_fitting.head.pickles import read_pickle

BATCH = 6
TOLERANCE = 1e-6
"""Metres."""


@pytest.fixture(scope="module")
def path(test_data: Path) -> Path:
    """A model with FLAME's arrays, as FLAME is downloaded."""
    return test_data / "standin" / "flame2023_standin.pkl"


@pytest.fixture(scope="module")
def parameters() -> dict[str, np.ndarray]:
    """Random ones: two sigma, turned heads, an open jaw, eyes that look aside."""
    rng = np.random.default_rng(5)
    sizes = {"shape": (BATCH, 300), "expr": (BATCH, 100), "rotation": (BATCH, 3), "neck_pose": (BATCH, 3)}
    sizes |= {"jaw_pose": (BATCH, 3), "eyes_pose": (BATCH, 6), "translation": (BATCH, 3)}
    scale = {"shape": 2.0, "expr": 2.0, "rotation": 0.8, "neck_pose": 0.5, "jaw_pose": 0.4, "eyes_pose": 0.3}
    drawn = {name: scale.get(name, 0.3) * rng.normal(size=size) for name, size in sizes.items()}
    drawn["rotation"][0] = drawn["jaw_pose"][0] = 0  # the singular place of axis-angle
    return drawn


@pytest.fixture(scope="module")
def head(path: Path, tmp_path_factory: pytest.TempPathFactory) -> HeadModel:
    """The same file as this project reads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_FITTING_CACHE", str(tmp_path_factory.mktemp("cache")))
        return HeadModel(read_flame(path), torch.float64)


@pytest.fixture(scope="module")
def ours(head: HeadModel, parameters: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (B, V, 3) and joints (B, 5, 3) of this project, each person in one call."""
    vertices, joints = [], []
    for b in range(BATCH):
        given = {name: torch.as_tensor(value[b : b + 1]) for name, value in parameters.items()}
        given["shape"] = given["shape"][0]
        out = head(**given)
        vertices.append(out.vertices[0].numpy())
        joints.append(out.joints[0].numpy())
    return np.array(vertices), np.array(joints)


def test_smplx_agrees(
    path: Path, parameters: dict[str, np.ndarray], ours: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    smplx = pytest.importorskip("smplx", reason="smplx is not installed (test extra)")
    content: dict[str, Any] = read_pickle(path)
    plain = {key: value.toarray() if isinstance(value, SparseColumns) else value for key, value in content.items()}
    # smplx insists on landmark files beside the model; any will do, they only add to the joints
    (tmp_path / "FLAME_NEUTRAL.pkl").write_bytes(pickle.dumps(plain))
    landmarks = {"lmk_face_idx": np.zeros(51, dtype=np.int64), "lmk_b_coords": np.full((51, 3), 1 / 3)}
    for name in ("flame_static_embedding.pkl", "FLAME_NEUTRAL_static_embedding.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(landmarks))
    model = smplx.FLAME(
        str(tmp_path), num_betas=300, num_expression_coeffs=100, dtype=torch.float64, ext="pkl", batch_size=BATCH
    )
    given = {name: torch.as_tensor(value) for name, value in parameters.items()}
    with torch.no_grad():
        out = model(
            betas=given["shape"],
            expression=given["expr"],
            global_orient=given["rotation"],
            neck_pose=given["neck_pose"],
            jaw_pose=given["jaw_pose"],
            leye_pose=given["eyes_pose"][:, :3],
            reye_pose=given["eyes_pose"][:, 3:],
            transl=given["translation"],
        )
    assert np.abs(out.vertices.numpy() - ours[0]).max() < TOLERANCE
    assert np.abs(out.joints.numpy()[:, :5] - ours[1]).max() < TOLERANCE


def test_body_models_agree(path: Path, parameters: dict[str, np.ndarray], ours: tuple[np.ndarray, np.ndarray]) -> None:
    flame = pytest.importorskip("body_models.flame.numpy", reason="body-models is not installed (test extra)")
    model = flame.FLAME(model_path=path)
    given = {
        # neck, jaw, left eye, right eye
        "head_pose": np.concatenate([parameters[n] for n in ("neck_pose", "jaw_pose", "eyes_pose")], 1).reshape(
            -1, 4, 3
        ),
        "head_rotation": parameters["rotation"],
        "shape": parameters["shape"],
        "expression": parameters["expr"],
        "global_translation": parameters["translation"],
    }
    vertices = np.asarray(model.forward_vertices(**given))
    joints = np.asarray(model.forward_skeleton(**given))[..., :3, 3]
    assert np.abs(vertices - ours[0]).max() < TOLERANCE
    assert np.abs(joints - ours[1]).max() < TOLERANCE


def test_the_tolerance_would_notice(head: HeadModel, parameters: dict[str, np.ndarray], ours) -> None:
    given = {name: torch.as_tensor(value[1:2]) for name, value in parameters.items()}
    given["shape"] = given["shape"][0]
    given["eyes_pose"] = given["eyes_pose"].roll(3, dims=1)
    assert np.abs(head(**given).vertices[0].numpy() - ours[0][1]).max() > 1e-3
