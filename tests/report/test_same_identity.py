"""Neutral heads of two fits side by side: the same person is the same whatever the face does, another one is not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from flame_fitting.errors import InputError
from flame_fitting.evaluate import EvaluateConfig, evaluate
from flame_fitting.fit.result import FitResult, save_parameters
from flame_fitting.head.loading import load_head
from flame_fitting.head.model import HeadModel
from flame_fitting.report.same_identity import agreement, neutral_vertices, rigidly_aligned, still_mask


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head("open")


def a_fit(head: HeadModel, shape: np.ndarray, seed: int, offsets: np.ndarray | None = None) -> FitResult:
    """A fit with a random expression and pose, in a frame of its own."""
    rng = np.random.default_rng(seed)
    offsets = np.zeros((1, head.n_vertices, 3)) if offsets is None else offsets[None]
    poses = {"rotation": 3, "translation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6}
    return FitResult(
        head_name=head.name,
        head_hash=head.file_hash,
        parameters={name: rng.normal(0, 0.1, (1, size)) for name, size in poses.items()}
        | {"shape": shape, "expr": rng.normal(0, 1, (1, head.n_expr)), "static_offset": offsets},
        head_from_world=np.eye(4),
        image_size=(8, 8),
        timestep_id=["0"],
        head_identity=head.identity,
    )


def saved(folder: Path, fit: FitResult) -> Path:
    folder.mkdir()
    save_parameters(folder / "tracked_flame_params.npz", fit)
    return folder


def test_expression_and_pose_are_no_part_of_it(head: HeadModel) -> None:
    shape = np.random.default_rng(1).normal(0, 1, head.n_shape)
    one, two = (neutral_vertices(a_fit(head, shape, seed), head) for seed in (2, 3))
    assert np.array_equal(one, two)
    rest = head(shape=torch.as_tensor(shape, dtype=torch.float32)).vertices[0].numpy()
    assert np.allclose(one, rest, atol=1e-7)


def test_what_stands_still(head: HeadModel) -> None:
    still = still_mask(head)
    assert 500 < still.sum() < 2000
    for name in ("lips", "eyelids", "chin", "eyeballs", "lip_inside", "neck_lower"):
        assert still[head.regions[name].numpy()].mean() < 0.3, name
    assert still[head.regions["ears"].numpy()].mean() > 0.9


def test_turns_and_shifts_are_aligned_but_not_sizes(head: HeadModel) -> None:
    rest = head.v_template.numpy().astype(np.float64)
    turned = rest @ Rotation.from_rotvec([0.1, -0.2, 0.05]).as_matrix().T + [0.3, 0.0, -0.1]
    assert np.allclose(rigidly_aligned(head, turned, rest), rest, atol=1e-9)
    larger = agreement(head, 1.02 * rest, rest)["face"]["median"]
    assert 0.4 < larger < 2.0, "2 % of some centimetres around the middle of what is aligned"


def test_where_two_heads_differ(head: HeadModel) -> None:
    rest = head.v_template.numpy().astype(np.float64)
    other = rest.copy()
    other[head.regions["lips"].numpy(), 2] += 0.002
    found = agreement(head, other, rest)
    assert found["lips"]["median"] == pytest.approx(2.0, abs=1e-6)
    assert found["face"]["median"] < 1e-6 and found["eyelids"]["p95"] < 1e-6


def test_evaluate_tells_it_and_writes_nothing(
    head: HeadModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = np.zeros(head.n_shape)
    other = shape.copy()
    other[0] = 1.0
    folders = [saved(tmp_path / "a", a_fit(head, shape, 0)), saved(tmp_path / "b", a_fit(head, other, 1))]
    before = sorted(path for path in tmp_path.rglob("*"))
    found = evaluate(EvaluateConfig(folders[0], same_identity=folders[1])).metrics["same_identity"]
    expected = agreement(head, *(neutral_vertices(a_fit(head, s, 0), head) for s in (other, shape)))
    assert found["face"]["median"] == pytest.approx(expected["face"]["median"], rel=1e-3)
    assert found["face"]["median"] > 0.1
    assert f"{found['lips']['p95']:.2f}" in capsys.readouterr().out
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_folder_that_is_no_fit(head: HeadModel, tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", a_fit(head, np.zeros(head.n_shape), 0))
    with pytest.raises(InputError, match="nothing"):
        evaluate(EvaluateConfig(folder, same_identity=tmp_path / "nothing"))
