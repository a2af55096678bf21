"""Real avatars through the whole chain, as a user runs it: a scan, and a character with hair and clothes."""

import json
from pathlib import Path
from typing import Any

import pytest

from flame_fitting.cli import main

SCAN = "lps_head/lps_textured.glb"
CHARACTER = "valid_avatars/Asian_F_2_Casual_head.glb"


def run_and_check(avatar: Path, output: Path, *options: str) -> dict[str, Any]:
    """Runs the command and returns metrics.json, after what must hold of every avatar."""
    assert avatar.is_file()
    assert main(["run", str(avatar), "--output", str(output), *options]) == 0
    metrics = json.loads((output / "fit" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["regions"]["face"]["to_avatar_mm"]["median"] <= 0.5
    assert metrics["flipped_triangles"] == 0
    for name in ("fit/fitted.obj", "fit/tracked_flame_params.npz", "fit/report.html", "export/transforms.json"):
        assert (output / name).stat().st_size > 0
    return metrics


def test_a_scan_in_short(test_data: Path, tmp_path: Path) -> None:
    options = ("--no-photometric", "--views", "8", "--resolution", "256")
    run_and_check(test_data / "avatars" / SCAN, tmp_path / "out", *options)


# The character's fringe hangs over her forehead, which rightly does not follow it: bare skin is measured.
BARE = {SCAN: ("face",), CHARACTER: ("nose", "lips", "chin", "left_cheek", "right_cheek")}


@pytest.mark.slow
@pytest.mark.parametrize("name", [SCAN, CHARACTER])
def test_default_settings(name: str, test_data: Path, tmp_path: Path) -> None:
    metrics = run_and_check(test_data / "avatars" / name, tmp_path / "out")
    assert metrics["regions"]["face"]["from_avatar_mm"]["median"] <= 1.0
    for region in BARE[name]:
        assert metrics["regions"][region]["to_avatar_mm"]["p95"] <= 3.0
    assert not [text for text in metrics["warnings"] if "rolled back" in text]
