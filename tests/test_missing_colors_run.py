"""A run without the avatar's picture ends well, and says so everywhere."""

import json
from pathlib import Path

import pytest
import trimesh

import flame_fitting
from flame_fitting.make_demo_avatar import MakeDemoAvatarConfig, make_demo_avatar


@pytest.mark.slow
def test_a_missing_picture_is_warned_of_in_the_log_the_capture_the_metrics_and_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_demo_avatar(MakeDemoAvatarConfig(output=tmp_path / "demo"))
    (mesh,) = trimesh.load_scene(made, process=False).dump()
    folder = tmp_path / "obj"
    folder.mkdir()
    mesh.export(folder / "head.obj")  # with .mtl and picture beside it
    for picture in [*folder.glob("*.png"), *folder.glob("*.jp*g")]:
        picture.unlink()
    output = tmp_path / "out"
    result = flame_fitting.fit_head(folder / "head.obj", output, views=8, resolution=256, photometric=False)
    capture = json.loads((output / "render" / "avatar.json").read_text())
    (warning,) = capture["warnings"]
    assert "head.obj" in warning and "not in the avatar's folder" in warning
    assert json.loads((output / "render" / "transforms.json").read_text())["shading"] == "clay"
    assert result.metrics["warnings"].count(warning) == 1
    assert json.loads((output / "fit" / "metrics.json").read_text())["warnings"].count(warning) == 1
    assert "not in the avatar&#39;s folder" in (output / "fit" / "report.html").read_text()
    assert result.metrics["regions"]["face"]["to_avatar_mm"]["median"] < 1.0
