"""FLAME's own landmark embeddings: read safely, on the right places, in the detector's order."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flame_fitting.errors import InputError
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.flame_files import read_flame
from flame_fitting.head.model import HeadModel
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.landmarks.embedding_schemes import for_scheme
from flame_fitting.landmarks.licensed_embeddings import load_licensed_embedding
from flame_fitting.landmarks.schemes import SCHEMES
from tests.toy import toy_head, toy_head_data

MEDIAPIPE = SCHEMES["mediapipe478"]


@pytest.fixture(scope="module")
def standin(test_data: Path) -> Path:
    folder = test_data / "standin"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


@pytest.fixture(scope="module")
def head(standin: Path) -> HeadModel:
    return HeadModel(read_flame(standin / "flame2023_standin.pkl", "standin"))


@pytest.fixture(scope="module")
def flame_sized() -> HeadModel:
    """A mesh with FLAME's counts and no licence: the toy's vertices and triangles over and over."""
    data = toy_head_data(n_shape=2, n_expr=2)
    rows, triangles = np.arange(5023) % len(data.v_template), np.arange(9976) % len(data.faces)
    data.v_template, data.weights = data.v_template[rows], data.weights[rows]
    data.shapedirs, data.exprdirs, data.posedirs = data.shapedirs[rows], data.exprdirs[rows], data.posedirs[rows]
    data.J_regressor = data.J_regressor[:, rows]
    data.faces, data.uv, data.uv_faces, data.regions = data.faces[triangles], None, None, {}
    return HeadModel(data)


def nearest(head: HeadModel, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangle and weights of the triangle centre that is nearest to each place (N, 3)."""
    centers = head.v_template[head.faces].mean(1).double().numpy()
    index = np.linalg.norm(centers[None] - places[:, None], axis=2).argmin(1)
    return index, np.full((len(places), 3), 1 / 3)


def places_of_a_face(count: int = 68) -> np.ndarray:
    """Any places, but the outer eye corners where a face has them."""
    places = np.random.default_rng(0).uniform([-0.05, -0.06, 0.05], [0.05, 0.05, 0.09], size=(count, 3))
    places[36], places[45] = [-0.045, 0.03, 0.06], [0.045, 0.03, 0.06]
    return places


def distances(head: HeadModel, embedding: LandmarkEmbedding, *pairs: tuple[int, int]) -> list[float]:
    """mm on the template."""
    points = embedding.points(head.v_template[None], head.faces)[0].double().numpy()
    return [1000 * float(np.linalg.norm(points[a] - points[b])) for a, b in pairs]


def test_points_lie_on_the_template_where_a_face_has_them(head: HeadModel, standin: Path) -> None:
    embedding = load_licensed_embedding(standin / "landmark_embedding_with_eyes.npy", head)
    assert (embedding.scheme, len(embedding.face_index)) == ("ibug70", 70)
    assert embedding.valid.all() and embedding.head_hash == head.file_hash
    found = distances(head, embedding, (36, 45), (39, 42), (8, 27), (0, 16))
    assert found == pytest.approx([90.3, 37.9, 115.6, 146.6], abs=0.06)
    points = embedding.points(head.v_template[None], head.faces)[0].numpy()
    eyeballs = head.weights.argmax(1)
    for pupil, joint in ((68, 4), (69, 3)):  # in the order of the eyes: the subject's right first
        ball = head.v_template[eyeballs == joint].numpy()
        assert np.linalg.norm(ball - points[pupil], axis=1).min() < 0.004


def test_order_of_mediapipe(head: HeadModel, standin: Path) -> None:
    own = load_licensed_embedding(standin / "landmark_embedding_with_eyes.npy", head)
    embedding = for_scheme(own, "mediapipe478", head)
    assert len(embedding.face_index) == 478 and embedding.valid.sum() == 70
    points = embedding.points(head.v_template[None], head.faces)[0].numpy()
    ibug = own.points(head.v_template[None], head.faces)[0].numpy()
    assert np.array_equal(points[MEDIAPIPE.ibug68], ibug[:68])
    assert points[468, 0] < 0 < points[473, 0]
    assert (
        points[MEDIAPIPE.groups["outer_lips"]][:, 1][np.isfinite(points[MEDIAPIPE.groups["outer_lips"], 1])].max()
        < (points[468, 1])
    )
    assert np.isnan(points[0 if not embedding.valid[0] else 1]).all()


def test_left_and_right_are_mirror_images(head: HeadModel, standin: Path) -> None:
    """A slip in the order of the two schemes would put points of one side on the other."""
    embedding = for_scheme(
        load_licensed_embedding(standin / "landmark_embedding_with_eyes.npy", head), "mediapipe478", head
    )
    points = embedding.points(head.v_template[None], head.faces)[0].numpy()
    mirrored = points[MEDIAPIPE.mirror] * [-1, 1, 1]
    both = np.isfinite(points[:, 0]) & np.isfinite(mirrored[:, 0])
    assert both.sum() > 60
    assert np.median(np.linalg.norm(points - mirrored, axis=1)[both]) < 0.002


def write_file(path: Path, content: dict[str, Any]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **content)
    else:
        np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


def test_files_of_every_kind(flame_sized: HeadModel, tmp_path: Path) -> None:
    faces, weights = nearest(flame_sized, places_of_a_face())
    full = {
        "full_lmk_faces_idx": faces[None],
        "full_lmk_bary_coords": weights[None],
        "static_lmk_faces_idx": faces[17:],
        "static_lmk_bary_coords": weights[17:],
        # as the widely used file has them: torch tensors
        "dynamic_lmk_faces_idx": torch.zeros(79, 17, dtype=torch.int64),
        "dynamic_lmk_bary_coords": torch.zeros(79, 17, 3),
    }
    embedding = load_licensed_embedding(write_file(tmp_path / "landmark_embedding.npy", full), flame_sized)
    assert embedding.scheme == "ibug68" and np.array_equal(embedding.face_index, faces)
    static = {name: value for name, value in full.items() if name.startswith("static")}
    embedding = load_licensed_embedding(write_file(tmp_path / "static.npy", static), flame_sized)
    assert not embedding.valid[:17].any() and np.array_equal(embedding.face_index[17:], faces[17:])
    chosen = np.sort(MEDIAPIPE.ibug68[17:])
    position = [int(np.flatnonzero(m == MEDIAPIPE.ibug68)[0]) for m in chosen]
    mediapipe = {"lmk_face_idx": faces[position], "lmk_b_coords": weights[position], "landmark_indices": chosen}
    embedding = load_licensed_embedding(write_file(tmp_path / "m.npz", mediapipe), flame_sized)
    assert embedding.scheme == "mediapipe478" and embedding.valid.sum() == 51
    assert np.array_equal(embedding.face_index[MEDIAPIPE.ibug68[17:]], faces[17:])
    assert for_scheme(embedding, "mediapipe478", flame_sized) is embedding
    back = for_scheme(embedding, "ibug68", flame_sized)
    assert not back.valid[:17].any() and np.array_equal(back.face_index[17:], faces[17:])


def test_chosen_instead_of_the_calibration(flame_sized: HeadModel, tmp_path: Path) -> None:
    from flame_fitting.avatar.head_calibration import landmark_embedding

    class Detector(LandmarkDetector):
        name, scheme, version = "none", "mediapipe478", "0"

        def detect(self, images: np.ndarray) -> np.ndarray:
            raise NotImplementedError

    faces, weights = nearest(flame_sized, places_of_a_face())
    path = write_file(tmp_path / "a.npy", {"full_lmk_faces_idx": faces, "full_lmk_bary_coords": weights})
    embedding = landmark_embedding(flame_sized, Detector(), "clay", licensed=path)
    assert embedding.scheme == "mediapipe478" and "a.npy" in embedding.detector
    assert np.array_equal(embedding.face_index[MEDIAPIPE.ibug68], faces)
    assert np.isfinite(embedding.spread_mm[embedding.valid]).all()


def test_wrong_head_is_refused(flame_sized: HeadModel, tmp_path: Path) -> None:
    faces, weights = nearest(flame_sized, places_of_a_face())
    path = write_file(tmp_path / "a.npy", {"full_lmk_faces_idx": faces, "full_lmk_bary_coords": weights})
    with pytest.raises(InputError, match=r"5023 vertices and 9976 triangles.*642 and 1280"):
        load_licensed_embedding(path, toy_head())
    swapped = write_file(tmp_path / "b.npy", {"full_lmk_faces_idx": faces[::-1], "full_lmk_bary_coords": weights})
    with pytest.raises(InputError, match="another mesh"):
        load_licensed_embedding(swapped, flame_sized)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"full_lmk_faces_idx": np.full(68, 9976)}, "names triangle 9976"),
        ({"full_lmk_faces_idx": np.full(68, 0.5)}, "do not fit together"),
        ({"full_lmk_bary_coords": np.full((68, 3), 0.5)}, "add up to 1"),
        ({"full_lmk_bary_coords": np.full((67, 3), 1 / 3)}, "do not fit together"),
        ({"full_lmk_faces_idx": np.zeros(5, dtype=int)}, "5 points"),
        ({"full_lmk_faces_idx": None}, "do not fit together|neither"),
    ],
)
def test_damaged_files_are_refused(flame_sized: HeadModel, tmp_path: Path, changed: dict[str, Any], text: str) -> None:
    faces, weights = nearest(flame_sized, places_of_a_face())
    content = {"full_lmk_faces_idx": faces, "full_lmk_bary_coords": weights} | changed
    if content["full_lmk_faces_idx"] is None:
        del content["full_lmk_faces_idx"]
    with pytest.raises(InputError, match=text):
        load_licensed_embedding(write_file(tmp_path / "a.npy", content), flame_sized)


def test_hostile_and_foreign_files_are_refused(flame_sized: HeadModel, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    write_file(tmp_path / "a.npy", {"full_lmk_faces_idx": Hostile()})
    with pytest.raises(InputError, match="nothing in it was run"):
        load_licensed_embedding(tmp_path / "a.npy", flame_sized)
    assert not (tmp_path / "owned").exists()
    np.save(tmp_path / "b.npy", np.zeros((3, 3)))
    (tmp_path / "c.npz").write_bytes(b"no zip")
    (tmp_path / "d.txt").write_text("text")
    np.savez(tmp_path / "e.npz", lmk_face_idx=np.zeros(105, dtype=int))
    for name in ("b.npy", "c.npz", "d.txt", "e.npz", "absent.npy"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            load_licensed_embedding(tmp_path / name, flame_sized)
