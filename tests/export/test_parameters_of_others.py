"""Parameters over time as other programs leave them: exported data sets, unions, run folders, a clip's JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flame_fitting.convert import Conversion, ConvertConfig, convert
from flame_fitting.errors import InputError
from flame_fitting.export.dialects.gathered import TIMED
from flame_fitting.export.dialects.registry import DIALECTS, read_parameters, recognise

T, V = 6, 20
POSES = {"rotation": 3, "translation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6}


def sequence(seed: int = 0, count: int = T) -> dict[str, np.ndarray]:
    """VHAP's arrays."""
    rng = np.random.default_rng(seed)
    arrays = {name: 0.1 * rng.normal(size=(count, width)) for name, width in POSES.items()}
    return arrays | {"shape": rng.normal(size=300), "expr": rng.normal(size=(count, 100))}


def offsets() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {"static_offset": 1e-3 * rng.normal(size=(1, V, 3)), "dynamic_offset": 1e-4 * rng.normal(size=(T, V, 3))}


def row(arrays: dict[str, np.ndarray], timestep: int) -> dict[str, np.ndarray]:
    timed = (*POSES, "expr", "dynamic_offset")
    return {name: value[[timestep]] if name in timed else value for name, value in arrays.items()}


def write_export(folder: Path, arrays: dict[str, np.ndarray], cameras: int = 16) -> None:
    """A data set as VHAP exports it: one file a timestep, named by the frames of all cameras."""
    (folder / "flame_param").mkdir(parents=True)
    count = len(arrays["expr"])
    for timestep in range(count):
        one = {name: value.astype(np.float32) for name, value in row(arrays, timestep).items()}
        np.savez(folder / "flame_param" / f"{timestep:05d}.npz", **one)
    still = {name: np.zeros_like(value) for name, value in row(arrays, 0).items()}
    still |= {"shape": arrays["shape"].astype(np.float32), "jaw_pose": np.array([[0.3, 0.0, 0.0]])}  # float64 there
    np.savez(folder / "canonical_flame_param.npz", **still)
    write_frames(folder / "transforms.json", [(t, f"flame_param/{t:05d}.npz") for t in range(count)], cameras)


def write_frames(path: Path, steps: list[tuple[int, str]], cameras: int = 16) -> None:
    frames = [
        {"timestep_index": t, "camera_index": c, "flame_param_path": place}
        for t, place in steps
        for c in range(cameras)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"frames": frames}))


def write_json(path: Path, arrays: dict[str, Any]) -> None:
    content = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in arrays.items()}
    path.write_text(json.dumps(content))


def run(source: Path, output: Path, to: str = "vhap", **options: Any) -> Conversion:
    return convert(ConvertConfig(input=source, output=output, to=to, **options))  # type: ignore[arg-type]


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def assert_same(written: dict[str, np.ndarray], arrays: dict[str, np.ndarray]) -> None:
    for name, value in arrays.items():
        assert written[name].shape == value.shape, name
        assert np.abs(written[name] - value).max() < 1e-6, name


# Exported data sets


def test_export_of_16_cameras_is_one_sequence(tmp_path: Path) -> None:
    arrays = sequence() | offsets()
    write_export(tmp_path / "export", arrays)
    result = run(tmp_path / "export", tmp_path / "a.npz")
    assert (result.timesteps, result.source, result.warnings) == (T, "vhap", [])
    written = load(tmp_path / "a.npz")
    assert_same(written, arrays)
    assert written["timestep_id"].tolist() == [f"{t:05d}" for t in range(T)]
    run(tmp_path / "export", tmp_path / "again")
    assert_same(load(tmp_path / "again" / "flame_param" / "00004.npz"), row(arrays, 4))


def test_canonical_file_with_float64(tmp_path: Path) -> None:
    arrays = sequence()
    write_export(tmp_path / "export", arrays)
    assert run(tmp_path / "export" / "canonical_flame_param.npz", tmp_path / "a.npz").timesteps == 1
    written = load(tmp_path / "a.npz")
    assert written["jaw_pose"].tolist() == [[np.float32(0.3), 0, 0]] and not written["expr"].any()
    assert np.allclose(written["shape"], arrays["shape"], atol=1e-6)


def test_union_of_data_sets(tmp_path: Path) -> None:
    """Its pictures name files of the sources beside it; train first, then test, cameras repeat each file."""
    one, two = sequence(1, 4), sequence(1, 3) | {"expr": sequence(2, 3)["expr"]}
    two["shape"] = one["shape"]
    write_export(tmp_path / "074_EMO-1", one)
    write_export(tmp_path / "074_EXP-2", two)
    union = tmp_path / "UNION2_074"
    train = [(t, f"../074_EMO-1/flame_param/{t:05d}.npz") for t in range(4)]
    write_frames(union / "transforms_train.json", train)
    write_frames(union / "transforms_val.json", train, cameras=1)
    write_frames(union / "transforms_test.json", [(4 + t, f"../074_EXP-2/flame_param/{t:05d}.npz") for t in range(3)])
    (union / "canonical_flame_param.npz").write_bytes((tmp_path / "074_EMO-1/canonical_flame_param.npz").read_bytes())
    assert run(union, tmp_path / "a.npz").timesteps == 7
    written = load(tmp_path / "a.npz")
    assert np.allclose(written["expr"], np.concatenate([one["expr"], two["expr"]]), atol=1e-6)
    assert "timestep_id" not in written  # numbers of several sequences tell none apart


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([(0, "../gone/flame_param/00000.npz")], "beside the data sets"),
        ([(0, "../../outside.npz")], "beside the data sets"),
        ([(0, "../a/flame_param/00000.npz"), (0, "../a/flame_param/00001.npz")], "timestep 0 has two files"),
        ([(0, "../a/flame_param/00000.txt")], "names no file of parameters"),
    ],
)
def test_broken_unions_are_refused(steps: list[tuple[int, str]], text: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "outside.npz", **sequence())
    write_export(tmp_path / "set" / "a", sequence())
    write_frames(tmp_path / "set" / "union" / "transforms_train.json", steps)
    with pytest.raises(InputError, match=text):
        run(tmp_path / "set" / "union", tmp_path / "a.npz")
    assert not (tmp_path / "a.npz").exists()


# Run folders


def test_parent_of_runs_is_its_latest_run_and_epoch(tmp_path: Path) -> None:
    arrays = sequence()
    # VHAP lists every timestep that it found, also those that it left out
    more = {"timestep_id": np.array([f"{t:06d}" for t in range(T + 3)]), "lights": np.ones((9, 3))}
    for name, factor in (("2024-01-01_10-00-00", 0.1), ("2024-03-01_09-00-00", 1.0)):
        (tmp_path / "track" / name).mkdir(parents=True)
        for epoch in (0, 10, 30):
            share = factor * (1.0 if epoch == 30 else 0.5)
            changed = arrays | {"expr": share * arrays["expr"]} | more
            np.savez(tmp_path / "track" / name / f"tracked_flame_params_{epoch}.npz", **changed)
    (tmp_path / "track" / "zzz").mkdir()
    np.savez(tmp_path / "track" / "zzz" / "tracked_flame_params_30.npz", **sequence(5))
    run(tmp_path / "track", tmp_path / "a.npz")
    written = load(tmp_path / "a.npz")
    assert_same(written, arrays)
    assert "timestep_id" not in written and written["lights"].shape == (9, 3)


# A clip's JSON


def numbered(values: np.ndarray) -> list[dict[str, float]]:
    """Rows as objects, in no order."""
    return [{f"expr{i}": float(line[i]) for i in reversed(range(len(line)))} for line in values]


def test_json_with_numbered_names(tmp_path: Path) -> None:
    arrays = sequence()
    write_json(tmp_path / "clip.json", arrays | {"expr": numbered(arrays["expr"])})
    result = run(tmp_path / "clip.json", tmp_path / "a.npz")
    assert (result.timesteps, result.source, result.warnings) == (T, "vhap", [])
    assert_same(load(tmp_path / "a.npz"), arrays)
    columns = {f"expr{i}": arrays["expr"][:, i].tolist() for i in range(100)}
    write_json(tmp_path / "columns.json", arrays | {"expr": columns})
    run(tmp_path / "columns.json", tmp_path / "b.npz")
    assert_same(load(tmp_path / "b.npz"), arrays)


@pytest.mark.parametrize("name", ["expr", "jaw_pose"])
def test_a_list_that_is_one_short_is_said(name: str, tmp_path: Path) -> None:
    arrays = sequence()
    write_json(tmp_path / "clip.json", arrays | {name: arrays[name][:-1]})
    result = run(tmp_path / "clip.json", tmp_path / "a.npz")
    assert result.timesteps == T - 1
    assert result.warnings == [
        f"{name} has {T - 1} entries where others have {T}: taken to begin together, the last timestep is left out"
    ]
    shared = {"shape": arrays["shape"]}
    assert_same(load(tmp_path / "a.npz"), {key: value[:-1] for key, value in arrays.items() if key != "shape"} | shared)


def test_shapes_of_every_timestep_are_cut_with_them(tmp_path: Path) -> None:
    arrays = sequence()
    many = arrays | {"shape": np.tile(arrays["shape"], (T, 1)), "timestep_id": [f"{t:05d}" for t in range(T)]}
    write_json(tmp_path / "clip.json", many | {"expr": arrays["expr"][:-1]})
    assert len(run(tmp_path / "clip.json", tmp_path / "a.npz").warnings) == 1
    written = load(tmp_path / "a.npz")
    assert written["timestep_id"].tolist() == [f"{t:05d}" for t in range(T - 1)]
    assert np.allclose(written["shape"], arrays["shape"], atol=1e-6)


def test_shape_of_as_many_coefficients_as_timesteps_is_no_list_of_them(tmp_path: Path) -> None:
    arrays = sequence(count=300)
    write_json(tmp_path / "clip.json", arrays | {"expr": arrays["expr"][:-1]})
    run(tmp_path / "clip.json", tmp_path / "a.npz")
    assert load(tmp_path / "a.npz")["shape"].shape == (300,)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"expr": sequence()["expr"][:-2]}, f"has {T} timesteps, but of expr {T - 2}: more than one"),
        ({"expr": [[0.0] * 100, [0.0] * 99] * 3}, r"entries of expr have different lengths \(\[99, 100\]\)"),
        ({"expr": [{"expr0": 0.0, "expr2": 1.0}] * T}, "not every number from 0 on once"),
        ({"expr": [{"smile": 0.0}] * T}, "without numbered names"),
        ({"jaw_pose": [[float("nan")] * 3] * T}, "not finite"),
        ({"jaw_pose": None}, "lacks|without jaw_pose"),
        ({"jaw_pose": [["a"] * 3] * T}, "not an array of numbers"),
    ],
)
def test_broken_json_is_refused(changed: dict[str, Any], text: str, tmp_path: Path) -> None:
    write_json(tmp_path / "clip.json", sequence() | changed)
    with pytest.raises(InputError, match=text) as error:
        run(tmp_path / "clip.json", tmp_path / "a.npz")
    assert "clip.json" in str(error.value) and not (tmp_path / "a.npz").exists()


def test_json_of_something_else_is_refused(tmp_path: Path) -> None:
    for text, why in (("{", "not readable JSON"), ("[1, 2]", "no JSON object"), ('{"frames": [{}]}', "no known FLAME")):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(InputError, match=why):
            run(tmp_path / "a.json", tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"has a\.json: give one clip's file"):
        run(tmp_path, tmp_path / "a.npz")


def test_what_is_no_array_in_a_json_is_said(tmp_path: Path) -> None:
    write_json(tmp_path / "clip.json", sequence() | {"camera": {"name": "left"}, "fps": 25})
    assert run(tmp_path / "clip.json", tmp_path / "a.npz").warnings == [
        "vhap has no camera: left out, whatever they mean"
    ]
    assert load(tmp_path / "a.npz")["fps"] == 25


def test_json_in_the_words_of_every_other_dialect(tmp_path: Path) -> None:
    """Lists of what a dialect writes are read as its file is."""
    np.savez(tmp_path / "a.npz", **sequence() | {name: np.zeros((T, 3)) for name in ("translation", "neck_pose")})
    for dialect in DIALECTS:
        if dialect.suffix != ".npz" or dialect.frame_per_file or dialect.name == "nersemble":  # needs a head model
            continue
        run(tmp_path / "a.npz", tmp_path / f"{dialect.name}.npz", dialect.name)
        arrays = load(tmp_path / f"{dialect.name}.npz")
        timed = {name for name, value in arrays.items() if value.ndim > 1 and len(value) == T}
        assert timed - {"betas", "shape"} <= TIMED, f"{dialect.name}: TIMED lacks {timed - TIMED}"
        write_json(tmp_path / f"{dialect.name}.json", arrays)
        params, source = read_parameters(tmp_path / f"{dialect.name}.json")
        assert source is dialect and params.count == T
        assert np.allclose(params.expr, read_parameters(tmp_path / f"{dialect.name}.npz")[0].expr)


# Whose it is


def test_names_of_two_programs_are_not_guessed_at(tmp_path: Path) -> None:
    arrays = sequence()
    both = arrays | {"betas": arrays["shape"], "expression": arrays["expr"], "global_orient": 2 * arrays["rotation"]}
    both |= {"transl": arrays["translation"], "leye_pose": np.zeros((T, 3)), "reye_pose": np.zeros((T, 3))}
    np.savez(tmp_path / "a.npz", **both)
    with pytest.raises(InputError, match="smplx and vhap: they may differ"):
        recognise(tmp_path / "a.npz")
    convert(ConvertConfig(tmp_path / "a.npz", tmp_path / "b.npz", "vhap", source="vhap"))
    assert np.allclose(load(tmp_path / "b.npz")["rotation"], arrays["rotation"], atol=1e-6)


def test_shared_cases(test_data: Path, tmp_path: Path) -> None:
    cases = test_data / "cases"
    if not (cases / "gathered_params.json").is_file():
        pytest.skip(f"{cases}/gathered_params.json is not there")
    result = run(cases / "gathered_params.json", tmp_path / "a.npz")
    assert result.timesteps == 5 and "expr has 5 entries where others have 6" in result.warnings[0]
    with pytest.raises(InputError, match=r"eye_rot.*no known FLAME parameters.*nearest is vhap"):
        run(cases / "foreign_tracker.npz", tmp_path / "b.npz")
