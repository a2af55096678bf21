"""A stage may only improve: what counts as worse, and the roll-back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flame_fitting import progress
from flame_fitting.errors import InputError
from flame_fitting.fit import driver, priors
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.driver import SOLVERS, run_stage, run_stages
from flame_fitting.fit.folds import folded_triangles
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.pictures import ZOOMED
from flame_fitting.fit.presets import preset
from flame_fitting.fit.quality import Quality, measure, picture_error, worsened
from flame_fitting.fit.repair import RepairConfig
from flame_fitting.fit.schedule import effective_pipeline
from flame_fitting.fit.solvers import adam
from flame_fitting.fit.solvers.adam import Refined
from flame_fitting.fit.solvers.adam_settings import photometric_config
from flame_fitting.fit.solvers.interface import Diverged, Stage
from flame_fitting.fit.stage_config import StageConfig
from flame_fitting.fit.state import FitState
from flame_fitting.fit.texture import TexelMaps
from flame_fitting.fit.views import ViewSet
from flame_fitting.render.backend import make_rasterizer
from tests.fit.known_truth import problem
from tests.fit.pictures import around, draw, smooth_texture, stored
from tests.toy import toy_head

GEOMETRIC = ["lmk_init_rigid", "lmk_init_all", "geo_init_all", "geo_init_offset"]
GOOD = Quality(landmark_mm=1.0, face_mm=0.3, face_p95_mm=1.0, folded=0)


def test_what_counts_as_worse() -> None:
    assert worsened(GOOD, GOOD) is None
    assert worsened(GOOD, replace(GOOD, landmark_mm=0.1, face_mm=0.1)) is None
    # one term may lose a little for another's gain
    assert worsened(GOOD, replace(GOOD, landmark_mm=2.9, face_mm=0.34)) is None
    assert "landmarks" in str(worsened(GOOD, replace(GOOD, landmark_mm=3.1)))
    assert "0.30 to 0.40" in str(worsened(GOOD, replace(GOOD, face_mm=0.4)))
    # folds are repaired, not counted against a stage
    assert worsened(GOOD, replace(GOOD, folded=2, folded_lips=3, folded_eyelids=4)) is None


def test_pictures_are_a_measure_and_forgive_landmarks() -> None:
    """Without geometry landmarks are all that is known in millimetres, and they are noisy or biased."""
    seen = Quality(landmark_mm=1.0, face_mm=np.nan, face_p95_mm=np.nan, folded=0, picture=0.05)
    assert worsened(seen, replace(seen, picture=0.055)) is None
    assert "from 0.050 to 0.080" in str(worsened(seen, replace(seen, picture=0.08)))
    assert worsened(seen, replace(seen, picture=np.nan)) is not None
    assert worsened(seen, replace(seen, landmark_mm=4.0, picture=0.03)) is None
    assert "landmarks" in str(worsened(seen, replace(seen, landmark_mm=4.0)))
    assert "landmarks" in str(worsened(seen, replace(seen, landmark_mm=6.0, picture=0.03)))


def test_picture_error_is_least_at_the_truth_whatever_texture_a_stage_has() -> None:
    head, rasterizer = toy_head(), make_rasterizer("cpu")
    views = draw(head, head.v_template.numpy(), smooth_texture(64), around(5, 0.4) + around(5, -0.3), 128)
    views, texels = replace(views, background=torch.ones(3)), TexelMaps(rasterizer, head)

    def error(shift: float) -> float:
        moved = head.v_template + torch.tensor([shift, 0.0, 0.0])
        return picture_error(rasterizer, head, moved, stored(views), texels, 128)

    errors = [error(shift) for shift in (0.0, 0.004, 0.01, 0.03)]
    assert errors == sorted(errors) and errors[1] > 2 * errors[0], errors


def test_a_stage_that_spoils_the_pictures_is_rolled_back_without_geometry(monkeypatch) -> None:
    state, seen = _pictured()
    errors = iter([0.03, 0.08, 0.03, 0.029])
    for target in seen.targets:
        target.surface = None
    monkeypatch.setattr(driver, "picture_error", lambda *args: next(errors))
    for expected in (False, True):
        state = _did(state, seen, lambda state: state, monkeypatch, solver="adam")
        assert state.records[-1].accepted is expected
    assert "pictures went from 0.030 to 0.080" in state.warnings[0] and len(state.warnings) == 1
    # with a surface to measure to, and for stages without pictures, they are not drawn
    state = _did(state, seen, lambda state: state, monkeypatch)
    assert "picture" not in state.records[-1].summary


def test_light_and_texture_that_were_fitted_together_are_drawn_together() -> None:
    (_, seen), config = _pictured(), preset("vhap")
    stage = config.pipeline.rgb_sequential_tracking
    assert "lights" not in stage.optimizable_params
    views, device = _batch(seen), torch.device("cpu")
    for lit, lighting in ((False, "constant"), (True, "SH")):
        found = photometric_config(Stage("", stage, config), views, device, is_sequence=False, lit=lit)
        assert found.lighting == lighting


def test_nothing_to_measure_is_not_worse_but_losing_the_measure_is() -> None:
    nothing = replace(GOOD, face_mm=np.nan)
    assert worsened(nothing, nothing) is None and worsened(nothing, GOOD) is None
    assert worsened(GOOD, nothing) is not None


def test_measured_quality_is_the_distance_to_the_surface() -> None:
    head, truth, targets, _ = problem()
    exact = measure(head, truth, targets)
    assert exact.face_mm < 0.05 and exact.landmark_mm < 1e-6 and exact.folded == 0
    pushed = truth.clone()
    pushed.placement[5] += 0.002  # toward the viewer, and the face looks there
    moved = measure(head, pushed, targets)
    assert 1.0 < moved.face_mm < 2.05 and moved.landmark_mm == pytest.approx(2.0, abs=0.01)


def _toy() -> tuple[FitState, Observations]:
    head, _, targets, surface = problem()
    world = np.diag([0.01, 0.01, 0.01, 1.0])
    return FitState(FitParameters.neutral(head), world), Observations(head, targets, surface)


def _did(state: FitState, seen: Observations, work, monkeypatch, name="toy", solver="gauss_newton") -> FitState:
    """The state after a stage whose solver does some work."""
    monkeypatch.setitem(SOLVERS, solver, lambda state, seen, stage, shown: work(state))
    with progress.silent():
        return run_stage(state, seen, Stage(name, StageConfig(1, solver=solver), FitConfig(Path("toy"))))


def _shifted(state: FitState) -> FitState:
    moved = state.parameters.clone()
    moved.placement[4] += 0.02
    return replace(state, parameters=moved)


def test_a_stage_that_worsens_is_rolled_back_recorded_and_said(monkeypatch) -> None:
    start, seen = _toy()
    quality = measure(seen.head, start.parameters, seen.targets)
    state = _did(start, seen, _shifted, monkeypatch)
    torch.testing.assert_close(state.parameters.placement, start.parameters.placement, rtol=0, atol=0)
    (record,) = state.records
    assert record.name == "toy" and not record.accepted and record.summary == quality.as_dict()
    assert len(state.warnings) == 1 and "toy was rolled back" in state.warnings[0]
    np.testing.assert_allclose(record.vertices_world(seen.head), state.vertices_world(seen.head))
    posed = start.parameters.vertices(seen.head)[0].numpy()
    np.testing.assert_allclose(record.vertices_world(seen.head)[0] * 0.01, posed, atol=1e-9)
    assert start.records == () and start.warnings == ()  # the state before stays what it was


@pytest.mark.parametrize("share", [0.99, 1.01])
@pytest.mark.parametrize("longer", [True, False])
def test_a_focal_length_far_from_the_assumed_one_is_taken_back(share: float, longer: bool, monkeypatch) -> None:
    """Pictures are drawn for heads up to `ZOOMED` times as far away or as near, and other stages have to stay there."""
    start, seen = _toy()
    factor = (0.8 * ZOOMED * share) ** (1 if longer else -1)

    def zoom(state: FitState) -> FitState:
        return replace(state, parameters=replace(state.parameters, log_focal=torch.tensor([np.log(factor)])))

    state = _did(start, seen, zoom, monkeypatch)
    (record,), found = state.records, float(state.parameters.log_focal[0].exp())
    assert record.accepted == (share < 1)
    assert found == pytest.approx(factor if share < 1 else 1.0)
    told = [f"stage toy was rolled back: it went to a focal length of {factor:.2g} times the assumed one"]
    assert list(state.warnings) == ([] if share < 1 else told)


def test_work_on_the_tensors_in_place_is_rolled_back_too(monkeypatch) -> None:
    def work(state: FitState) -> FitState:
        state.parameters.placement[4] += 0.02
        return state

    start, seen = _toy()
    state = _did(start, seen, work, monkeypatch)
    assert state.parameters.placement[4] == 0 and not state.records[0].accepted


def test_parameters_that_are_not_finite_are_rolled_back(monkeypatch) -> None:
    def work(state: FitState) -> FitState:
        state.parameters.shape[0] = torch.nan
        return state

    start, seen = _toy()
    state = _did(start, seen, work, monkeypatch)
    assert torch.isfinite(state.parameters.shape).all()
    assert "finite" in state.warnings[0] and not state.records[0].accepted


def test_a_solver_that_diverges_is_rolled_back(monkeypatch) -> None:
    def work(state: FitState) -> FitState:
        raise Diverged("the loss went up")

    start, seen = _toy()
    state = _did(start, seen, work, monkeypatch)
    assert state.warnings == ("stage toy was rolled back: the loss went up",) and not state.records[0].accepted
    assert torch.equal(state.parameters.shape, start.parameters.shape)


def _with_a_fold(state: FitState) -> FitState:
    """The true head with one vertex of its face across the triangles around it."""
    head, truth, _, _ = problem()
    out = truth.clone()
    middle = int(torch.argmin((head.v_template - torch.tensor([0.0, 0.0, 0.09])).norm(dim=-1)))
    out.static_offset[0, middle] = torch.tensor([0.02, 0.0, 0.0])
    assert folded_triangles(head, out).any()
    return replace(state, parameters=out)


def test_a_fold_is_repaired_and_the_stage_is_kept(monkeypatch) -> None:
    (start, seen), lines = _toy(), []
    monkeypatch.setattr(progress, "say", lines.append)
    state = _did(start, seen, _with_a_fold, monkeypatch)
    (record,) = state.records
    assert record.accepted and state.warnings == () and record.summary["folded"] == 0
    assert record.summary["face_mm"] < 0.05 and not folded_triangles(seen.head, state.parameters).any()
    assert len(record.smoothed) >= 1 and seen.head.face_mask("face")[record.smoothed].all()
    assert len(lines) == 1 and lines[0].startswith(f"toy: {len(record.smoothed)} triangle")


def test_offsets_that_a_repair_gives_up_are_warned_of(monkeypatch) -> None:
    (start, seen), thorough = _toy(), driver.repair
    monkeypatch.setattr(driver, "repair", lambda *args: thorough(*args, RepairConfig(rounds=0)))
    state = _did(start, seen, _with_a_fold, monkeypatch)
    assert state.records[0].accepted and not folded_triangles(seen.head, state.parameters).any()
    assert len(state.warnings) == 1 and "lost offsets" in state.warnings[0] and state.warnings[0].startswith("toy: ")


def test_a_fold_does_not_save_a_stage_that_worsens(monkeypatch) -> None:
    (start, seen), lines = _toy(), []
    monkeypatch.setattr(progress, "say", lines.append)
    state = _did(start, seen, lambda state: _shifted(_with_a_fold(state)), monkeypatch)
    assert state.parameters.static_offset.abs().max() == 0 and state.parameters.placement[4] == 0
    assert not state.records[0].accepted and state.records[0].smoothed == [] and lines == []
    assert "toy was rolled back: landmarks" in state.warnings[0]


def test_a_stage_that_improves_is_kept(monkeypatch) -> None:
    (start, seen), truth = _toy(), problem()[1]
    state = _did(start, seen, lambda state: replace(state, parameters=truth), monkeypatch)
    assert torch.equal(state.parameters.shape, truth.shape) and state.warnings == () and state.records[0].accepted
    assert state.records[0].summary["face_mm"] < 0.05


def test_geometric_stages_run_in_order_and_reach_the_truth(tmp_path: Path) -> None:
    state, seen = _toy()
    truth = problem()[1]
    with progress.silent():
        state = run_stages(state, seen, FitConfig(tmp_path))
    assert [record.name for record in state.records] == [
        "lmk_init_rigid",
        "lmk_init_all",
        "geo_init_all",
        "geo_init_offset",
    ]
    assert state.warnings == ()
    assert measure(seen.head, state.parameters, seen.targets).face_mm < 0.1
    found, expected = state.parameters.vertices(seen.head), truth.vertices(seen.head)
    assert 1000 * (found - expected).norm(dim=-1)[0, seen.head.region_mask("face")].median() < 1.0


def test_a_stage_can_be_left_out(tmp_path: Path) -> None:
    state, seen = _toy()
    config = FitConfig(tmp_path)
    config.pipeline.geo_init_all.num_steps = 0
    config.model.use_static_offset = False
    with progress.silent():
        state = run_stages(state, seen, config)
    assert [record.name for record in state.records] == ["lmk_init_rigid", "lmk_init_all"]
    assert state.parameters.static_offset.abs().max() == 0


def test_where_no_stage_is_left_to_run_it_is_said(tmp_path: Path) -> None:
    state, seen = _toy()
    config = FitConfig(tmp_path)
    config.begin_stage, config.exp.photometric = "rgb_global_tracking", False
    with pytest.raises(InputError, match="--begin_stage rgb_global_tracking: no stage is left"):
        run_stages(state, seen, config)


def test_flags_reach_the_priors(tmp_path: Path) -> None:
    plain, wide = priors.priors(FitConfig(tmp_path)), priors.priors(FitConfig(tmp_path, expressive=True))
    assert wide.expr > plain.expr and wide.jaw > plain.jaw and wide.shape == plain.shape


def _pictured(size: int = 64) -> tuple[FitState, Observations]:
    """A state with pictures of the true head, and detections in them."""
    head, truth, targets, surface = problem()
    vertices = truth.vertices(head)[0].numpy()
    views = draw(head, vertices, smooth_texture(64), around(3, 0.05, 60.0), size)
    views = replace(views, background=torch.ones(3))
    rasterizer = make_rasterizer("cpu")
    pictured = {"rasterizer": rasterizer, "pictures": stored(views), "texels": TexelMaps(rasterizer, head)}
    return FitState(truth.clone(), np.eye(4)), Observations(head, targets, surface, **pictured)


def _batch(seen: Observations) -> ViewSet:
    assert seen.pictures is not None
    return seen.pictures.batch(seen.pictures.rows())


def test_vhaps_stages_run_and_are_recorded() -> None:
    state, seen = _pictured()
    config = preset("vhap")
    config.model.tex_resolution = 32
    for _, stage in config.pipeline.items():
        stage.num_steps, stage.num_epochs = min(stage.num_steps, 2), min(stage.num_epochs, 2)
    config.pipeline.rgb_init_texture.num_steps = 3
    expected = [name for name, stage in effective_pipeline(config, False) if stage.solver == "adam"]
    with progress.silent():
        state = run_stages(state, seen, config)
    assert [record.name for record in state.records] == expected and len(expected) > 5
    assert all(np.isfinite(record.vertices_world(seen.head)).all() for record in state.records)
    assert state.texture.shape == state.residual.shape == (32, 32, 3) and state.texture_is_final
    assert state.residual.abs().max() > 0 and state.lights.shape == (9, 3)
    assert torch.isfinite(state.texture).all() and torch.isfinite(state.lights).all()


def test_a_stage_that_diverges_takes_back_all_that_it_changed(monkeypatch) -> None:
    state, seen = _pictured()
    colors = torch.full((32, 32, 3), 0.5)
    start = replace(state, texture=colors, residual=colors, lights=torch.full((9, 3), 0.1))
    kept = start.parameters.clone()
    config = preset("vhap")
    config.model.tex_resolution = 32

    def refined(problem, *args, **options) -> Refined:
        problem.parameters.shape[:] += 3.0
        spoiled = torch.full((32, 32, 3), torch.nan)
        return Refined(problem.parameters, spoiled, spoiled, torch.full((9, 3), torch.nan), "the loss went up")

    monkeypatch.setattr(adam, "refine", refined)
    with progress.silent():
        settings = replace(config.pipeline.rgb_init_all, num_steps=2)
        state = run_stage(start, seen, Stage("rgb_init_all", settings, config))
    for name, value in state.parameters.items().items():
        torch.testing.assert_close(value, getattr(kept, name), rtol=0, atol=0)
    assert state.texture is start.texture and state.residual is start.residual and state.lights is start.lights
    assert not state.texture_is_final and not state.records[0].accepted
    assert state.warnings == ("stage rgb_init_all was rolled back: the loss went up",)


def test_a_neutral_face_stays_neutral_in_every_second_order_stage(tmp_path: Path) -> None:
    (state, seen) = _toy()  # its truth has an expression and an open jaw
    with progress.silent():
        state = run_stages(state, seen, FitConfig(tmp_path, neutral=True))
    assert [record.name for record in state.records] == [
        "lmk_init_rigid",
        "lmk_init_all",
        "geo_init_all",
        "geo_init_offset",
    ]
    assert (state.parameters.expr == 0).all() and (state.parameters.jaw_pose == 0).all()
    assert (state.parameters.shape != 0).any() and (state.parameters.neck_pose != 0).any()
    free, seen = _toy()
    with progress.silent():
        free = run_stages(free, seen, FitConfig(tmp_path))
    assert (free.parameters.expr != 0).any() and (free.parameters.jaw_pose != 0).any()


def test_first_order_stages_keep_a_face_neutral_and_the_number_of_components() -> None:
    state, seen = _pictured()
    state = replace(state, parameters=FitParameters.neutral(seen.head))
    config = preset("vhap")
    config.neutral, config.model.n_shape, config.model.tex_resolution = True, 2, 32
    for _, stage in config.pipeline.items():
        stage.num_steps, stage.num_epochs = min(stage.num_steps, 3), min(stage.num_epochs, 2)
    with progress.silent():
        state = run_stages(state, seen, config)
    parameters = state.parameters
    assert (parameters.expr == 0).all() and (parameters.jaw_pose == 0).all() and (parameters.shape[2:] == 0).all()
    assert (parameters.shape[:2] != 0).all() and (parameters.eyes_pose != 0).any()
    config.neutral, config.model.n_expr = False, 1
    with progress.silent():
        state = run_stages(replace(state, records=()), seen, config)
    assert (state.parameters.expr[:, 0] != 0).all() and (state.parameters.expr[:, 1:] == 0).all()


@pytest.mark.parametrize("name", ["static", "vhap", "fast", "high"])
def test_every_preset_reaches_the_stages_with_neutral_and_component_counts(name: str) -> None:
    config = preset(name)
    config.neutral, config.model.n_shape, config.model.n_expr = True, 7, 3
    views = _batch(_pictured()[1])
    for has_geometry in (False, True):
        for stage_name, stage in effective_pipeline(config, has_geometry):
            if stage.solver != "adam":
                assert "expr" not in stage.optimizable_params
                continue
            told = Stage(stage_name, stage, config)
            settings = photometric_config(told, views, torch.device("cpu"), is_sequence=False)
            assert not {"expr", "jaw_pose"} & dict(settings.lr).keys(), stage_name
            assert dict(settings.components) == {"shape": 7, "expr": 3}


def test_moving_observations_leaves_their_head_where_it_is() -> None:
    """A fit computes on a GPU, and what is made of its result on the CPU; `meta` stands for a GPU."""
    head, _, targets, surface = problem()
    seen = Observations(head, targets, surface)
    moved = seen.to(torch.device("meta"))
    assert moved.head.v_template.device.type == "meta" and moved.targets[0].sources[0].landmarks.points.is_meta
    assert seen.head.v_template.device.type == "cpu" and not seen.targets[0].sources[0].landmarks.points.is_meta
