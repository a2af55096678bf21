"""A fit that was stopped after any of its stages goes on to the same result, and only where it is the same fit."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.fit.checkpoint import CHECKPOINT_NAME, Checkpoint, _digest, load_checkpoint, save_checkpoint
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.driver import recorded, run_stages
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import PARAMETERS, FitParameters
from flame_fitting.fit.presets import preset
from flame_fitting.fit.quality import Quality
from flame_fitting.fit.resuming import Resumable
from flame_fitting.fit.scale import Scale
from flame_fitting.fit.state import APPEARANCE, FitState, StageRecord, Underway
from flame_fitting.fit.texture import TexelMaps
from flame_fitting.manifest import Manifest
from flame_fitting.render.backend import make_rasterizer
from tests.fit.known_truth import problem
from tests.fit.pictures import around, draw, smooth_texture, stored
from tests.toy import toy_head


def pictured(name: str) -> tuple[FitState, Observations, FitConfig]:
    """The toy problem with pictures, from the neutral head, and a preset's stages with few steps."""
    head, truth, targets, surface = problem()
    posed = truth.vertices(head)[0].numpy()
    views = replace(draw(head, posed, smooth_texture(64), around(3, 0.05, 60.0), 64), background=torch.ones(3))
    rasterizer = make_rasterizer("cpu")
    texels = TexelMaps(rasterizer, head)
    seen = Observations(head, targets, surface, rasterizer=rasterizer, pictures=stored(views), texels=texels)
    config = preset(name)
    config.model.tex_resolution = 32
    for _, stage in config.pipeline.items():
        stage.num_steps = min(stage.num_steps, 5 if stage.solver == "gauss_newton" else 2)
        stage.num_epochs, stage.texture_sizes = min(stage.num_epochs, 2), ()
    return FitState(FitParameters.neutral(head), np.eye(4)), seen, config


def assert_same(found: FitState, expected: FitState) -> None:
    for name, value in expected.parameters.items().items():
        assert torch.equal(getattr(found.parameters, name), value), name
    for name in APPEARANCE:
        value = getattr(expected, name)
        assert getattr(found, name) is value is None or torch.equal(getattr(found, name), value), name
    np.testing.assert_equal(found.uncertainty, expected.uncertainty)
    assert found.texture_is_final == expected.texture_is_final and found.warnings == expected.warnings
    assert [record.name for record in found.records] == [record.name for record in expected.records]
    for now, then in zip(found.records, expected.records, strict=True):
        np.testing.assert_equal(now.summary, then.summary)  # NaN where there is nothing to measure
        assert (now.accepted, now.smoothed) == (then.accepted, then.smoothed)
        np.testing.assert_array_equal(now.reference_from_world, then.reference_from_world)
        assert now.parameters is not None and then.parameters is not None
        for key, value in then.parameters.items().items():
            assert torch.equal(getattr(now.parameters, key), value), (now.name, key)


@pytest.mark.parametrize("name", ["static", "vhap"])
def test_stopped_after_any_stage_it_comes_to_the_same(name: str, tmp_path: Path) -> None:
    start, seen, config = pictured(name)
    config.exp.checkpoint_seconds = 0.0  # none in the middle of a stage, however long it takes
    if name == "vhap":
        for target in seen.targets:
            target.surface = None
    paths: list[Path] = []

    def keep(state: FitState) -> None:
        paths.append(tmp_path / f"{len(paths)}.safetensors")
        save_checkpoint(paths[-1], Checkpoint(state, seen.head.file_hash))

    with progress.silent():
        expected = run_stages(start, seen, config, keep=keep)
        assert len(paths) == len(expected.records) >= 4
        assert (expected.texture_is_final, expected.lights is None) == ((False, True), (True, False))[name == "vhap"]
        for path in paths:
            assert_same(run_stages(load_checkpoint(path).state, seen, config), expected)


@pytest.mark.parametrize("name", ["static", "vhap"])
def test_stopped_in_the_middle_of_any_stage_it_comes_to_the_same(name: str, tmp_path: Path) -> None:
    """A checkpoint before every step of the solvers that keep them: moments, generators, buffers, damping."""
    start, seen, config = pictured(name)
    config.exp.checkpoint_seconds = 1e-9
    config.render.views_per_step = 2  # drawn in random order
    for _, stage in config.pipeline.items():
        if stage.solver == "adam" and stage.runs:
            stage.num_steps, stage.num_epochs = 3, 0
    saved: dict[str, FitState] = {}

    def keep(state: FitState) -> None:
        if state.underway is not None:
            path = tmp_path / f"{state.underway.stage}_{state.underway.step}.safetensors"
            save_checkpoint(path, Checkpoint(state, seen.head.file_hash))
            saved[path.stem] = load_checkpoint(path).state

    with progress.silent():
        expected = run_stages(start, seen, config, keep=keep)
        steps = {stem.rsplit("_", 1)[0] for stem in saved}
        solvers = {record.name: dict(config.pipeline.items())[record.name].solver for record in expected.records}
        assert steps == {stage for stage, solver in solvers.items() if solver in ("gauss_newton", "adam")}
        last = {stage: max(stem for stem in saved if stem.startswith(f"{stage}_")) for stage in steps}
        for stem in last.values():
            assert_same(run_stages(saved[stem], seen, config), expected)


def test_stopped_between_two_timesteps_it_comes_to_the_same(tmp_path: Path) -> None:
    head, truth, targets, surface = problem(timesteps=3)
    seen, start = Observations(head, targets, surface), FitState(FitParameters.neutral(head, 3), np.eye(4))
    config = FitConfig(Path("toy"))
    config.exp.checkpoint_seconds = 1e-9
    for name, stage in config.pipeline.items():
        stage.num_steps = 4 if name in ("lmk_init_rigid", "lmk_init_all", "geo_init_all") else 0
        stage.num_epochs = 0
    config.pipeline.geo_init_all.frames = "sequential"
    saved: list[FitState] = []

    def keep(state: FitState) -> None:
        if state.underway is not None and state.underway.stage == "geo_init_all":
            save_checkpoint(tmp_path / "a.safetensors", Checkpoint(state, head.file_hash))
            saved.append(load_checkpoint(tmp_path / "a.safetensors").state)

    with progress.silent():
        expected = run_stages(start, seen, config, keep=keep)
        places = [(s.underway.batch, s.underway.step) for s in saved if s.underway is not None]
        assert {batch for batch, _ in places} == {0, 1, 2} and {step for _, step in places} >= {0, 2}
        for state in saved[:: max(len(saved) // 4, 1)]:
            assert_same(run_stages(state, seen, config), expected)
        assert expected.uncertainty["expr"].shape == truth.expr.shape
        assert np.isfinite(expected.uncertainty["jaw_pose"]).all()


def test_what_a_finished_stage_was_in_the_middle_of_is_not_kept(tmp_path: Path) -> None:
    """Nor said: moments of an optimiser may be larger than all else."""
    head, _, targets, surface = problem()
    seen, start = Observations(head, targets, surface), FitState(FitParameters.neutral(head), np.eye(4))
    config, kept, saved = FitConfig(Path("toy")), list[FitState](), list[FitState]()
    config.exp.checkpoint_seconds = 1e-9
    for name, stage in config.pipeline.items():
        stage.num_steps, stage.num_epochs = 4 if name in ("lmk_init_rigid", "lmk_init_all") else 0, 0
    with progress.silent():
        run_stages(start, seen, config, keep=saved.append)
        left = next(s for s in saved if s.underway is not None and s.underway.stage == "lmk_init_all")
        config.exp.checkpoint_seconds = 0.0
        found = run_stages(left, seen, config, keep=kept.append)
    assert len(kept) == 1 and [record.name for record in kept[0].records][-1] == "lmk_init_all"
    assert kept[0].underway is None and found.underway is None


def some_state() -> FitState:
    head = toy_head()
    parameters = FitParameters.neutral(head, 3)
    generator = torch.Generator().manual_seed(0)
    for value in parameters.items().values():
        value.copy_(torch.randn(value.shape, generator=generator, dtype=value.dtype))
    world = np.diag([0.1, 0.1, 0.1, 1.0])
    record = StageRecord("one", FitParameters.neutral(head, 3), world, 1.5, {"face_mm": 0.1}, False, [7])
    return FitState(
        parameters,
        world,
        Scale("auto: dm", 0.1, 0.0987),
        texture=torch.rand(8, 8, 3),
        residual=torch.rand(8, 8, 3) - 0.5,
        texture_is_final=True,
        lights=torch.rand(9, 3),
        uncertainty={"shape": np.array([0.1, np.nan, np.inf])},
        records=(record,),
        warnings=("stage one was rolled back: it was worse",),
    )


def test_a_state_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    state = some_state()
    save_checkpoint(tmp_path / "a.safetensors", Checkpoint(state, "hash", {"fit": 2.0}))
    found = load_checkpoint(tmp_path / "a.safetensors")
    assert_same(found.state, state)
    assert found.state.scale == state.scale and (found.head_hash, found.seconds) == ("hash", {"fit": 2.0})
    np.testing.assert_array_equal(found.state.reference_from_world, state.reference_from_world)


def written(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = load_file(path)
    return found


def test_what_is_zero_or_equal_is_not_written_again(tmp_path: Path) -> None:
    path, state = tmp_path / "a.safetensors", some_state()
    moved = replace(state.parameters, log_focal=torch.tensor([-0.0], dtype=torch.float64))
    found = replace(state, parameters=moved.clone())  # a batch has moved nothing
    tensors = {"mean": torch.zeros(4, dtype=torch.float32), "flag": torch.zeros((), dtype=torch.bool)}
    tensors["half"] = torch.tensor([0.0, 1.0])
    state = replace(state, parameters=moved, underway=Underway("two", 1, found, 3, tensors, {}))
    state = state.recorded(StageRecord("two", moved.clone(), state.reference_from_world, 1.0))
    save_checkpoint(path, Checkpoint(state, "hash"))
    again = load_checkpoint(path).state
    assert_same(again, state)
    assert again.underway is not None and again.underway.found is not None
    assert_same(replace(again.underway.found, records=()), replace(found, records=()))
    assert torch.signbit(again.parameters.log_focal).all()
    for name, value in tensors.items():
        torch.testing.assert_close(again.underway.tensors[name], value, rtol=0, atol=0)
    names = set(written(path))
    own = {f"parameters/{name}" for name, value in moved.items().items() if value.numel()}
    assert names == own | {
        *("reference_from_world", "uncertainty/shape", "underway/tensors/half"),
        *(f"appearance/{name}" for name in APPEARANCE),
    }


def test_a_tracks_file_grows_by_what_moves_alone(tmp_path: Path) -> None:
    """Not by the vertices of every timestep after every stage."""
    head, stages = toy_head(), 4
    per_timestep = sum(p.dims(head, 1)[-1] for p in PARAMETERS if p.role == "frame" and not p.optional) * 8

    def size(timesteps: int) -> int:
        generator = torch.Generator().manual_seed(0)
        state = FitState(FitParameters.neutral(head, timesteps), np.eye(4))
        for number in range(stages):
            moved = state.parameters.clone()
            for name, value in moved.items().items():
                if name != "static_offset":
                    value.copy_(torch.randn(value.shape, generator=generator, dtype=value.dtype))
            state = replace(state, parameters=moved)
            state = recorded(state, f"stage_{number}", 1.0, Quality(1.0, np.nan, np.nan, 0))
        save_checkpoint(tmp_path / "a.safetensors", Checkpoint(state, "hash"))
        return (tmp_path / "a.safetensors").stat().st_size

    assert size(140) - size(40) == pytest.approx(100 * stages * per_timestep, rel=0.01)
    assert per_timestep < head.n_vertices


def test_a_file_of_before_stages_kept_their_parameters_is_read(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    path, state = tmp_path / "a.safetensors", some_state()
    save_checkpoint(path, Checkpoint(state, "hash"))
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["fit"])
    tensors = {f"parameters/{name}": value for name, value in state.parameters.items().items()}
    tensors["reference_from_world"] = torch.as_tensor(state.reference_from_world)
    tensors["stages/one/vertices_world"] = torch.ones(3, 5, 3, dtype=torch.float64)
    text = json.dumps({key: value for key, value in content.items() if key not in ("equal", "zero")})
    save_file(tensors, path, metadata={"fit": text, "sha256": _digest(text, tensors)})
    found = load_checkpoint(path).state
    for name, value in state.parameters.items().items():
        assert torch.equal(getattr(found.parameters, name), value), name
    (record,) = found.records
    assert record.parameters is None and (record.name, record.smoothed) == ("one", [7])


def kept(tmp_path: Path, plan: Manifest) -> Resumable:
    return Resumable(tmp_path / "fit", plan, frozenset({"device"}))


def test_only_the_same_fit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(progress, "say", lines.append)
    head, plan, state = toy_head(), Manifest("fit", {"seed": 1, "device": "cpu"}), some_state()
    assert kept(tmp_path, plan).left(head) is None and lines == [] and kept(tmp_path, plan).kept() is None
    kept(tmp_path, plan).keep(state, head)
    assert str(tmp_path / ".fit.resume") in (kept(tmp_path, plan).kept() or "")
    assert kept(tmp_path, Manifest("fit", {"seed": 2, "device": "cpu"})).kept() is None
    found = kept(tmp_path, Manifest("fit", {"seed": 1, "device": "cuda"})).left(head)
    assert found is not None
    assert_same(found, state)
    assert lines == ["goes on after one, where an earlier run was stopped"]
    # another seed: the checkpoint goes, since nothing will ever take it
    assert kept(tmp_path, Manifest("fit", {"seed": 2, "device": "cpu"})).left(head) is None
    assert "starts anew: seed 1 -> 2" in lines[-1] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["whole", "plan alone", "damaged plan"])
def test_no_state_is_kept_under_the_plan_of_another_fit(content: str, tmp_path: Path) -> None:
    """A run that does not ask what is left (--force), or finds a plan whose run was killed before its first state."""
    head, old, new, state = toy_head(), Manifest("fit", {"seed": 1}), Manifest("fit", {"seed": 2}), some_state()
    kept(tmp_path, old).keep(state, head)
    folder = tmp_path / ".fit.resume"
    if content != "whole":
        (folder / CHECKPOINT_NAME).unlink()
    if content == "damaged plan":
        (folder / "manifest.json").write_text("{")
    kept(tmp_path, new).keep(state, head)
    with progress.silent():
        assert kept(tmp_path, new).left(head) is not None
        assert kept(tmp_path, old).left(head) is None


def test_a_checkpoint_of_another_head_or_a_damaged_one_is_not_taken(tmp_path: Path) -> None:
    head, plan, state = toy_head(), Manifest("fit"), some_state()
    other = toy_head()
    other.file_hash = "other"
    kept(tmp_path, plan).keep(state, other)
    with progress.silent():
        assert kept(tmp_path, plan).left(head) is None
        kept(tmp_path, plan).keep(state, head)
        (path,) = tmp_path.glob(f".fit.resume/{CHECKPOINT_NAME}")
        path.write_bytes(path.read_bytes()[:-10])
        assert kept(tmp_path, plan).left(head) is None and not list(tmp_path.iterdir())
    kept(tmp_path, plan).keep(state, head)
    with pytest.raises(InputError, match="another head model"):
        load_checkpoint(path).check_head(path, other)
    kept(tmp_path, plan).remove()
    assert not list(tmp_path.iterdir())
