"""What decides whether a stage's earlier result is taken: inputs as they were when the stage read them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flame_fitting import cli
from flame_fitting.capture.files import CaptureWriter
from flame_fitting.detect_landmarks import DetectConfig, detect
from flame_fitting.detect_landmarks import plan as plan_detect
from flame_fitting.errors import InputError
from flame_fitting.fit.config import FitConfig
from flame_fitting.fit_avatar import plan as plan_fit
from flame_fitting.folders import capture_folder
from flame_fitting.landmarks.detector import LandmarkDetector
from flame_fitting.manifest import Manifest, compare, hash_capture, input_record, read_manifest
from flame_fitting.render_avatar import RenderConfig
from flame_fitting.render_avatar import plan as plan_render


class Detector(LandmarkDetector):
    """Finds the same points everywhere; calls back while it works."""

    name, version, scheme = "mediapipe", "1", "mediapipe478"

    def __init__(self) -> None:
        self.meanwhile: Any = lambda: None

    def detect(self, images: np.ndarray) -> np.ndarray:
        self.meanwhile()
        return np.ones((len(images), 478, 3), dtype=np.float32)


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> Detector:
    made = Detector()
    monkeypatch.setattr("flame_fitting.landmarks.registry.make_detector", lambda *_: made)
    return made


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    with CaptureWriter(tmp_path / "alice") as writer:
        for camera in range(2):
            picture = np.full((16, 16, 3), camera, np.uint8)
            writer.add(timestep=0, camera=camera, role="fit", K=np.eye(3), world_to_camera=np.eye(4), image=picture)
    return tmp_path / "alice"


def test_a_changed_texture_renders_again(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("mtllib a.mtl\nv 0 0 0\n")
    (tmp_path / "a.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    (tmp_path / "skin.png").write_bytes(b"one")
    config = RenderConfig(avatar=tmp_path / "a.obj", output=tmp_path / "out" / "render", head="open")
    old = plan_render(config)
    old.finished = True
    assert compare(old, plan_render(config)) is None
    (tmp_path / "skin.png").write_bytes(b"two")
    assert "input avatar has changed" in str(compare(old, plan_render(config)))


def test_an_input_that_changes_while_a_stage_runs_is_said_and_the_result_is_not_reused(
    detector: Detector, capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = DetectConfig(capture)
    assert detect(config).warnings == []
    folder = capture / "landmarks2d"
    assert compare(read_manifest(folder), plan_detect(config)) is None
    text = (capture / "transforms.json").read_text()
    detector.meanwhile = lambda: (capture / "transforms.json").write_text(text + "\n")
    result = detect(config)
    assert len(result.warnings) == 1 and "changed while the stage 'detect' read it" in result.warnings[0]
    assert "changed while" in capsys.readouterr().err
    # neither with the input as it is now, nor as it was at the start: which of them was read is not known
    assert "input capture changed during" in str(compare(read_manifest(folder), plan_detect(config)))
    (capture / "transforms.json").write_text(text)
    assert "input capture changed during" in str(compare(read_manifest(folder), plan_detect(config)))
    detector.meanwhile = lambda: None
    detect(config)
    assert compare(read_manifest(folder), plan_detect(config)) is None


def test_a_plan_that_is_passed_on_is_what_the_stage_is_held_to(detector: Detector, capture: Path) -> None:
    config = DetectConfig(capture)
    assert detect(config, plan_detect(config)).warnings == []
    old = plan_detect(config)
    text = (capture / "transforms.json").read_text()
    (capture / "transforms.json").write_text(text + "\n")  # after the plan, before the stage
    assert "changed while the stage 'detect' read it" in detect(config, old).warnings[0]
    assert "input capture changed during" in str(compare(read_manifest(capture / "landmarks2d"), plan_detect(config)))


def test_a_capture_is_hashed_before_a_stage_and_after_it_and_no_more(
    detector: Detector, capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def counting(root: Path) -> str:
        hashed.append(root)
        return hash_capture(root)

    monkeypatch.setattr("flame_fitting.capture.hashing.hash_capture", counting)
    config = DetectConfig(capture)
    detect(config)
    assert len(hashed) == 2
    plan = plan_detect(config)
    detect(config, plan)
    assert len(hashed) == 4


def test_an_input_that_goes_while_a_stage_runs(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")

    def plan() -> Manifest:
        return Manifest(stage="render", inputs={"avatar": input_record(tmp_path / "a", tmp_path / "out")})

    manifest = plan()
    assert plan().finish(plan) == [] and not plan().finished
    (tmp_path / "a").unlink()
    assert len(manifest.finish(plan)) == 1
    assert manifest.finished and manifest.changed_inputs == ["avatar"]


def test_a_fit_knows_its_capture_by_the_folder_or_the_file(capture: Path) -> None:
    hashes = [
        plan_fit(FitConfig(capture_folder(path), head="open")).inputs["capture"]
        for path in (capture, capture / "transforms.json")
    ]
    assert hashes[0] == hashes[1]
    (capture / "images" / "00000_01.png").write_bytes(b"changed")
    assert plan_fit(FitConfig(capture, head="open")).inputs["capture"].sha256 != hashes[0].sha256
    with pytest.raises(InputError, match="no such folder"):  # once a hash of nothing, the same for all
        plan_fit(FitConfig(capture / "transforms.json", head="open"))


def test_commands_take_transforms_json_for_its_folder(
    detector: Detector, capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["detect", str(capture / "transforms.json")]) == 0
    assert (capture / "landmarks2d" / "mediapipe.npz").is_file()
    (capture / "other.json").write_text("{}")
    for command in (["detect"], ["fit"]):
        assert cli.main([*command, str(capture / "other.json")]) == 2
        assert "other.json: is a file. Give the folder of a capture." in capsys.readouterr().err
    assert cli.main(["evaluate", str(capture / "other.json")]) == 2
    assert "Give the folder of a fit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("capture", "fit"),
    [
        ("data/alice", "data/alice_fit"),
        ("data/bob", "data/bob_fit"),
        ("data/alice/transforms.json", "data/alice_fit"),
        ("O/render", "O/fit"),
        ("O/render/transforms.json", "O/fit"),
        ("render_fit", "render_fit_fit"),
    ],
)
def test_where_a_fit_goes_by_default(capture: str, fit: str, tmp_path: Path) -> None:
    assert FitConfig(tmp_path / capture).folder == (tmp_path / fit).resolve()


def test_no_two_captures_share_a_default(tmp_path: Path) -> None:
    names = ["render", "fit", "_fit", "alice", "alice_fit", "render_fit"]
    assert len({FitConfig(tmp_path / name).folder for name in names}) == len(names)


def test_run_refuses_before_it_renders_what_a_later_stage_could_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flame_fitting import run_pipeline

    def never(*_: Any) -> None:
        raise AssertionError("a stage ran")

    module = SimpleNamespace(plan=lambda _: Manifest(stage="render"))
    out = tmp_path / "out"
    config = RenderConfig(avatar=tmp_path / "a.glb", output=out / "render")
    steps = [run_pipeline.Step(name, module, never, config, out / name) for name in ("render", "fit")]
    monkeypatch.setattr(run_pipeline, "chain", lambda *_: steps)
    (tmp_path / "a.glb").write_bytes(b"avatar")
    (out / "fit").mkdir(parents=True)
    (out / "fit" / "thesis.tex").write_text("dear")
    Manifest(stage="run").write(out)
    with pytest.raises(InputError, match=r"out/fit: the folder is not empty"):
        run_pipeline.run(run_pipeline.RunConfig(tmp_path / "a.glb", out))
