"""Actions in terms of another head model's components."""

import numpy as np
import torch

from flame_fitting import assets
from flame_fitting.head.actions import actions_at_landmarks, actions_of
from flame_fitting.head.embedding import LandmarkEmbedding
from flame_fitting.head.loading import load_head


def test_actions_carried_by_landmarks_are_those_of_the_open_head() -> None:
    """To the open head itself with its components mixed: other coefficients, the same movement."""
    head, embedding = load_head("open"), LandmarkEmbedding.load(assets.shipped_embedding_path("mediapipe", "lit"))
    index = np.flatnonzero(embedding.valid)[::2]
    corners, shares = head.faces[embedding.face_index[index]], torch.as_tensor(embedding.barycentric[index])
    mix = np.linalg.qr(np.random.default_rng(0).standard_normal((head.n_expr, head.n_expr)))[0]
    plain, mixed = head.exprdirs, head.exprdirs.double() @ torch.as_tensor(mix)
    try:
        head.exprdirs = mixed
        found = actions_at_landmarks(head, corners, shares, index)
    finally:
        head.exprdirs = plain
    shipped = actions_of(head)
    assert found is not None and shipped is not None and len(found.names) > 40
    assert (found.explained > 0.5).all()
    at = [shipped.names.index(name) for name in found.names]
    face = head.regions["face"]
    wanted = np.einsum("vce,ae->avc", plain[face].double().numpy(), shipped.coefficients[at])
    moved = np.einsum("vce,ae->avc", mixed[face].numpy(), found.coefficients)
    left = (np.square(moved - wanted).sum((1, 2)) / np.square(wanted).sum((1, 2))) ** 0.5
    assert np.median(left) < 0.3, left


def test_a_model_without_expressions_has_no_actions() -> None:
    head, embedding = load_head("open"), LandmarkEmbedding.load(assets.shipped_embedding_path("mediapipe", "lit"))
    index = np.flatnonzero(embedding.valid)
    corners, shares = head.faces[embedding.face_index[index]], torch.as_tensor(embedding.barycentric[index])
    plain = head.exprdirs
    try:
        head.exprdirs = plain[..., :0]
        assert actions_at_landmarks(head, corners, shares, index) is None
    finally:
        head.exprdirs = plain
