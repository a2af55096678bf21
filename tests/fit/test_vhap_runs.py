"""VHAP's run folders: nothing in their configuration is run, damage is an input error, rows keep their names."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.errors import InputError
from flame_fitting.fit.places import find_fit_folder
from flame_fitting.fit.result import load_fit
from flame_fitting.fit.vhap_runs import RunData, read_run, read_run_data

ARRAYS = {
    "rotation": np.zeros((3, 3)),
    "translation": np.zeros((3, 3)),
    "neck_pose": np.zeros((3, 3)),
    "jaw_pose": np.zeros((3, 3)),
    "eyes_pose": np.zeros((3, 6)),
    "shape": np.arange(4.0),
    "expr": np.zeros((3, 2)),
    "timestep_id": np.array(["a", "b", "c"]),
}


def write(folder: Path, **changes: np.ndarray | None) -> Path:
    arrays = {key: value for key, value in (ARRAYS | changes).items() if value is not None}
    np.savez(folder / "tracked_flame_params_30.npz", **arrays)
    return folder / "tracked_flame_params_30.npz"


def test_tags_are_passed_over_and_nothing_is_run(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(
        "!!python/object:vhap.config.base.BaseTrackingConfig\n"
        "evil: !!python/object/apply:os.system [touch " + str(tmp_path / "ran") + "]\n"
        "data: !!python/object:vhap.config.base.DataConfig\n"
        "  _target: !!python/name:vhap.data.VideoDataset ''\n"
        "  root_folder: !!python/object/apply:pathlib.PosixPath\n  - data\n  - monocular\n"
        "  sequence: obama\n  calibrated: false\n  n_downsample_rgb: 4\n  scale_factor: 1\n"
        "  subset: null\n  image_size_during_calibration: !!python/tuple\n  - 3208\n  - 2200\n"
    )
    data = read_run_data(tmp_path)
    assert data.root_folder == Path("data/monocular") and data.sequence == "obama" and data.calibrated is False
    assert data.n_downsample_rgb == 4 and data.scale_factor == 1.0 and data.subset is None
    assert data.image_size_during_calibration == (3208, 2200)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["data: [", "data: &a [*a]\n  x", "\x00"])
def test_a_damaged_configuration_is_an_input_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(InputError, match=r"config\.yml"):
        read_run_data(tmp_path)


@pytest.mark.parametrize("text", ["", "just text", "data: 3", "- 1"])
def test_a_configuration_that_says_nothing_of_the_data(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yml").write_text(text)
    assert read_run_data(tmp_path) == RunData()


@pytest.mark.parametrize(
    "changes",
    [
        {"expr": None},
        {"rotation": np.zeros((2, 3))},
        {"translation": np.full((3, 3), np.nan)},
        {"static_offset": np.zeros((3, 5, 3))},
        {"dynamic_offset": np.zeros((1, 5, 3))},
        {"focal_length": np.array([-1.0])},
        {"shape": np.array(["x"])},
    ],
)
def test_wrong_arrays_are_input_errors(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(InputError, match="tracked_flame_params_30"):
        read_run(write(tmp_path, **changes), RunData())


def test_rows_of_a_subset_keep_their_names(tmp_path: Path) -> None:
    names = np.array([f"{t:06d}" for t in range(7)])
    path = write(tmp_path, timestep_id=names)
    assert read_run(path, RunData(subset="ti1tj5ts2")).timestep_id == ["000001", "000003", "000005"]
    found = read_run(path, RunData())
    assert found.timestep_id == ["000000", "000001", "000002"] and "names 7 timesteps" in found.notes[0]
    with pytest.raises(InputError, match="3 rows"):
        read_run(write(tmp_path, timestep_id=names[:2]), RunData())


def test_the_last_run_and_its_last_epoch_are_taken(tmp_path: Path) -> None:
    for name in ("2024-01-01_10-00-00", "2024-02-01_10-00-00", ".hidden"):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    last = tmp_path / "2024-02-01_10-00-00"
    np.savez(last / "tracked_flame_params_5.npz", **ARRAYS | {"shape": np.zeros(4)})
    assert find_fit_folder(tmp_path) == last
    fit = load_fit(tmp_path)
    np.testing.assert_array_equal(fit.parameters["shape"], np.arange(4.0))  # of epoch 30, not of 5
    assert fit.head_hash == "" and fit.timestep_id == ["a", "b", "c"]
