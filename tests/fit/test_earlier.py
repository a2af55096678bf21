"""A fit that begins with what another one has found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.fit.checkpoint import CHECKPOINT_NAME, Checkpoint, save_checkpoint
from flame_fitting.fit.driver import run_stages
from flame_fitting.fit.earlier import earlier_state, in_reference
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.state import FitState, StageRecord
from tests.fit.known_truth import problem
from tests.fit.test_resuming import pictured
from tests.synthetic import similarity
from tests.toy import toy_head

WORLD = similarity(0.01)


def test_a_folder_gives_its_whole_state_and_another_frame_moves_nothing_in_the_world(tmp_path: Path) -> None:
    head, truth, _, _ = problem(offset=lambda h: 1e-3 * torch.sin(60 * h.v_template))
    record = StageRecord("one", truth, WORLD, 1.0)
    lights = torch.rand(9, 3)
    state = FitState(truth, WORLD, texture=torch.rand(8, 8, 3), lights=lights, records=(record,), warnings=("x",))
    save_checkpoint(tmp_path / CHECKPOINT_NAME, Checkpoint(state, head.file_hash))
    found = earlier_state(tmp_path, head, 1)
    assert found.records == () and found.warnings == () and found.lights is not None
    assert torch.equal(found.lights, lights)
    other = similarity(0.0101, seed=5)
    moved = in_reference(found, other)
    np.testing.assert_allclose(moved.head_from_world, state.head_from_world, rtol=1e-9)
    assert np.abs(moved.reference_from_world - WORLD).max() > 1e-3
    expected = state.vertices_world(head)
    np.testing.assert_allclose(moved.vertices_world(head), expected, atol=1e-7 * np.abs(expected).max())


def test_vhaps_file_is_read_in_a_static_heads_gauge(tmp_path: Path) -> None:
    """Rotation about the root joint and translation become placement; head space is the file's world."""
    head, truth, _, _ = problem()
    rng = np.random.default_rng(0)
    rotation, translation = torch.as_tensor(rng.normal(0, 0.3, (3, 3))), torch.as_tensor(rng.normal(0, 0.2, (3, 3)))
    parameters = replace(FitParameters.neutral(head, 3), shape=truth.shape, rotation=rotation, translation=translation)
    arrays = {name: value.numpy() for name, value in parameters.items().items() if name != "placement"}
    np.savez(tmp_path / "tracked_flame_params_30.npz", **arrays, focal_length=np.ones(1))
    found = earlier_state(tmp_path / "tracked_flame_params_30.npz", head, 1)
    assert not found.parameters.rotation.any() and not found.parameters.translation.any()
    expected = parameters.of_frames([0]).vertices(head)[0].numpy()
    np.testing.assert_allclose(found.vertices_world(head)[0], expected, atol=1e-9)
    # over time they carry the motion; the last timestep stays where the file ends
    over_time = earlier_state(tmp_path / "tracked_flame_params_30.npz", head, 5)
    torch.testing.assert_close(over_time.parameters.rotation, rotation[[0, 1, 2, 2, 2]])


def test_a_files_focal_length_is_counted_from_the_one_that_is_assumed(tmp_path: Path) -> None:
    head = problem()[0]
    parameters = FitParameters.neutral(head, 2)
    arrays = {
        name: value.numpy() for name, value in parameters.items().items() if name not in ("placement", "log_focal")
    }
    path = tmp_path / "tracked_flame_params.npz"
    np.savez(path, **arrays, focal_length=np.array([2.1], dtype=np.float32))
    assert float(earlier_state(path, head, 2, assumed_focal=1.5).parameters.log_focal[0]) == pytest.approx(np.log(1.4))
    assert not earlier_state(path, head, 2).parameters.log_focal.any()  # cameras that are known stay
    np.savez(path, **arrays, focal_length=np.array([np.nan]))
    with pytest.raises(InputError, match="focal_length"):
        earlier_state(path, head, 2, assumed_focal=1.5)


@pytest.mark.parametrize(
    ("timesteps", "said"),
    [
        (3, "3 timesteps; focal length 2.100 of the picture's longer side; texture"),
        (2, "3 timesteps, of which the first 2 are taken; focal"),
        (1, "3 timesteps, of which the first is taken; focal"),
        (5, "3 timesteps, the last of which stands for the 2 after it; focal"),
    ],
)
def test_what_a_fit_begins_with_is_said_in_a_line(timesteps: int, said: str, tmp_path: Path) -> None:
    head, lines = toy_head(), list[str]()
    parameters = FitParameters.neutral(head, 3)
    parameters.log_focal[0] = np.log(1.4)
    state = FitState(parameters, np.eye(4), texture=torch.rand(4, 4, 3))
    save_checkpoint(tmp_path / CHECKPOINT_NAME, Checkpoint(state, head.file_hash))
    earlier_state(tmp_path, head, timesteps, 1.5, lines.append)
    assert len(lines) == 1 and lines[0].startswith(f"begins with {tmp_path}: {said}")
    earlier_state(tmp_path, head, timesteps, notify=lines.append)  # of cameras that are known
    assert "focal" not in lines[1]


def test_begun_at_the_next_stage_it_comes_to_the_same(tmp_path: Path) -> None:
    start, seen, config = pictured("static")
    folder = tmp_path / "fit"
    folder.mkdir()

    def keep(state: FitState) -> None:
        if state.records and state.records[-1].name == "geo_init_all":
            save_checkpoint(folder / CHECKPOINT_NAME, Checkpoint(state, seen.head.file_hash))

    with progress.silent():
        expected = run_stages(start, seen, config, keep=keep)
        names = [record.name for record in expected.records]
        config.begin_stage = names[names.index("geo_init_all") + 1]
        state = in_reference(earlier_state(folder, seen.head, 1), start.reference_from_world)
        found = run_stages(state, seen, config)
    assert [record.name for record in found.records] == names[names.index("geo_init_all") + 1 :]
    for name, value in expected.parameters.items().items():
        torch.testing.assert_close(getattr(found.parameters, name), value, rtol=0, atol=2e-6, msg=name)


def test_what_is_no_fit_or_anothers_is_refused(tmp_path: Path) -> None:
    head = toy_head()
    with pytest.raises(InputError, match="no fit is there"):
        earlier_state(tmp_path, head, 1)
    np.savez(tmp_path / "foreign.npz", rot=np.zeros((1, 3)), expr=np.zeros((1, 65)))
    with pytest.raises(InputError, match="keys expr, rot"):
        earlier_state(tmp_path / "foreign.npz", head, 1)
    arrays = {name: value.numpy() for name, value in FitParameters.neutral(head, 2).items().items()}
    more = np.concatenate([arrays["shape"], [0.0, 1.0]])
    for wrong in ({"shape": more}, {"jaw_pose": np.full((2, 3), np.nan)}, {"static_offset": np.zeros((1, 7, 3))}):
        np.savez(tmp_path / "wrong.npz", **(arrays | wrong))
        with pytest.raises(InputError, match=next(iter(wrong))):
            earlier_state(tmp_path / "wrong.npz", head, 2)
    np.savez(tmp_path / "padded.npz", **(arrays | {"shape": np.concatenate([arrays["shape"], np.zeros(9)])}))
    assert earlier_state(tmp_path / "padded.npz", head, 2).parameters.timesteps == 2
    other = toy_head()
    other.file_hash = "other"
    state = FitState(FitParameters.neutral(head, 1), np.eye(4))
    save_checkpoint(tmp_path / CHECKPOINT_NAME, Checkpoint(state, other.file_hash))
    with pytest.raises(InputError, match="another head model"):
        earlier_state(tmp_path, head, 1)
