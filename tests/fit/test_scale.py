"""The scale of a fit: which unit an estimate is taken for, what flags settle, and that a held scale is kept exactly."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flame_fitting import progress
from flame_fitting.capture.camera import project
from flame_fitting.errors import InputError
from flame_fitting.fit.begin import begin
from flame_fitting.fit.check import check
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit.driver import run_stages
from flame_fitting.fit.landmark_sources import LandmarkSource
from flame_fitting.fit.observations import Observations
from flame_fitting.fit.parameters import FitParameters
from flame_fitting.fit.prepare import masked_surface_weights
from flame_fitting.fit.quality import measure
from flame_fitting.fit.scale import METRES_PER_UNIT, Scale, asked_for, chosen_by, unit_near
from flame_fitting.fit.state import FitState
from flame_fitting.landmarks.files import Landmarks2D
from tests.fit.known_truth import ibug_embedding
from tests.synthetic import known_fit, render_case, similarity
from tests.toy import toy_head


@pytest.mark.parametrize("unit", METRES_PER_UNIT)
@pytest.mark.parametrize("size", [0.925, 0.95, 1.0, 1.075])
def test_an_estimate_near_a_unit_is_taken_for_it(unit, size: float) -> None:
    found = chosen_by(size * METRES_PER_UNIT[unit], None)
    assert found.metres_per_unit == METRES_PER_UNIT[unit] and found.source == f"auto: {unit}" and found.held
    assert found.estimate == size * METRES_PER_UNIT[unit] and f"one unit is 1 {unit}" in found.sentence


@pytest.mark.parametrize("estimate", [0.061, 0.115, 0.13, 0.91, 1.09, 0.0113, 0.27, 0.33, 2.0, 1e-4, 5e-7, 1e9])
@pytest.mark.parametrize("file_format", ["glb", "obj", None])
def test_else_the_estimate_stands_also_where_the_format_has_a_unit(estimate: float, file_format) -> None:
    found = chosen_by(estimate, file_format)
    assert found.source == "estimated" and not found.held and found.estimate == estimate


def test_the_formats_own_unit_wins_where_several_are_near(monkeypatch) -> None:
    monkeypatch.setattr("flame_fitting.fit.scale.NEAR", 0.75)  # at 8 % no two units overlap
    assert unit_near(0.35) == "foot" and unit_near(0.35, "m") == "m" and unit_near(0.35, "mm") == "foot"


@pytest.mark.parametrize(
    ("mode", "unit", "file_format", "source"),
    [
        ("auto", None, "glb", None),
        ("auto", "cm", "glb", "fixed: cm"),
        ("fixed", "foot", "obj", "fixed: foot"),
        ("fixed", None, "glb", "fixed: m"),
        ("fixed", None, "vrm", "fixed: m"),
        ("fixed", None, "obj", "fixed: m"),
        ("fixed", None, None, "fixed: m"),
        ("estimate", None, "glb", "estimated"),
    ],
)
def test_what_flags_and_format_settle(mode, unit, file_format, source) -> None:
    found = asked_for(mode, unit, file_format)
    assert (found.source if found else None) == source
    assert found is None or found.held == source.startswith("fixed")


def test_contradictions_are_refused_and_auto_is_the_default(tmp_path: Path) -> None:
    from flame_fitting.run_pipeline import RunConfig, run

    assert FitConfig(tmp_path).scale == RunConfig(tmp_path, tmp_path).scale == "auto"
    check(FitConfig(tmp_path, unit="inch"))
    with pytest.raises(InputError, match="--scale estimate and --unit cm"):
        check(FitConfig(tmp_path, scale="estimate", unit="cm"))
    (tmp_path / "a.glb").touch()
    with pytest.raises(InputError, match="--scale estimate and --unit cm"):
        run(RunConfig(tmp_path / "a.glb", tmp_path / "out", scale="estimate", unit="cm"))


class Case:
    """A toy head of known shape in an avatar of `metres` a unit, `size` times as large as the model has it."""

    def __init__(self, folder: Path, metres: float, size: float = 1.0, **config) -> None:
        self.head = toy_head().double()
        self.embedding = ibug_embedding(self.head)
        truth = known_fit(toy_head(), similarity(metres / size))
        truth.parameters["jaw_pose"][:] = 0
        truth.parameters["expr"][:] = 0
        self.vertices = truth.vertices_world(self.head)[0]
        self.capture = render_case(folder, toy_head(), truth)
        points = np.einsum(
            "nkc,nk->nc", self.vertices[self.head.faces.numpy()[self.embedding.face_index]], self.embedding.barycentric
        )
        marks = np.full((1, len(self.capture.cameras), 68, 3), np.nan, dtype=np.float32)
        for row, view in enumerate(self.capture.views):
            yaw = (truth.head_from_world[:3, :3] @ np.linalg.inv(view.world_to_camera)[:3, 2])[2] / (metres / size)
            if yaw < -0.5:  # the camera looks at the face
                marks[0, row, :, :2] = project(points, view.K, view.world_to_camera)[:, :2]
                marks[0, row, :, 2] = 1
        detected = Landmarks2D(marks, "ibug68", "toy")
        self.config = FitConfig(folder, **config)
        with progress.silent():
            surface = masked_surface_weights(self.head, ())
            sources = [LandmarkSource(detected, self.embedding)]
            self.scale, start = begin(self.config, self.capture, sources, self.head, surface)
        self.seen = Observations(self.head, start.targets, surface)
        self.state = FitState(FitParameters.neutral(self.head), start.reference_from_world, self.scale)

    def fitted_scale(self) -> float:
        with progress.silent():
            self.state = run_stages(self.state, self.seen, self.config)
        return float(np.cbrt(np.linalg.det(self.state.head_from_world[:3, :3])))


@pytest.mark.parametrize(("unit", "size"), [("m", 0.95), ("cm", 1.04), ("inch", 1.0)])
def test_an_avatar_in_a_common_unit_gets_its_true_size(tmp_path: Path, unit, size: float) -> None:
    case = Case(tmp_path, METRES_PER_UNIT[unit], size)
    assert case.scale.source == f"auto: {unit}"
    assert case.scale.estimate == pytest.approx(METRES_PER_UNIT[unit] / size, rel=0.03)
    assert case.fitted_scale() == pytest.approx(METRES_PER_UNIT[unit], rel=1e-12)
    # its shape is met all the same
    quality = measure(case.head, case.state.parameters, case.seen.targets)
    assert quality.face_mm < 0.1 and case.state.warnings == ()
    face = case.head.regions["face"].numpy()
    apart = np.linalg.norm((case.state.vertices_world(case.head)[0] - case.vertices)[face], axis=1)
    assert 1000 * METRES_PER_UNIT[unit] * np.median(apart) < 1.5


def test_an_avatar_in_no_unit_keeps_its_estimate(tmp_path: Path) -> None:
    metres = 0.061
    case = Case(tmp_path, metres)
    assert case.scale.source == "estimated" and case.scale.estimate == pytest.approx(metres, rel=0.02)
    assert case.fitted_scale() == pytest.approx(metres, rel=0.02)
    assert case.state.parameters.placement[6] != 0


def test_auto_gives_what_fixed_gives(tmp_path: Path) -> None:
    auto, fixed = Case(tmp_path / "a", 0.01, 0.97), Case(tmp_path / "b", 0.01, 0.97, unit="cm")
    assert (auto.scale.source, fixed.scale.source) == ("auto: cm", "fixed: cm")
    assert auto.fitted_scale() == fixed.fitted_scale() == pytest.approx(0.01, rel=1e-12)
    np.testing.assert_array_equal(auto.state.parameters.shape, fixed.state.parameters.shape)


def test_estimate_ignores_the_units(tmp_path: Path) -> None:
    case = Case(tmp_path, 1.0, 0.95, scale="estimate")
    assert case.scale == Scale() and abs(case.fitted_scale() - 1) > 0.02


def test_a_unit_that_makes_the_face_no_persons_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"about 1e\+03 mm") as refused:
        Case(tmp_path, 1.0, unit="cm")
    said = re.search(r"would be (\S+) times as large as people's", str(refused.value))
    assert said is not None and float(said[1]) == pytest.approx(0.01, rel=0.01)


def test_a_held_scale_moves_in_no_stage(tmp_path: Path) -> None:
    from flame_fitting.fit.presets import PRESETS, preset
    from flame_fitting.fit.schedule import effective_pipeline

    for name in PRESETS:
        for geometry in (False, True):
            held = effective_pipeline(preset(name, tmp_path), geometry, holds_scale=True)
            free = effective_pipeline(preset(name, tmp_path), geometry)
            assert [stage for stage, _ in held] == [stage for stage, _ in free]
            assert any("scale" in stage.optimizable_params for _, stage in free)
            for (_, a), (_, b) in zip(held, free, strict=True):
                assert a.optimizable_params == tuple(group for group in b.optimizable_params if group != "scale")
                assert replace(a, optimizable_params=()) == replace(b, optimizable_params=())
