"""The whole chain with a model of FLAME's format, on heads of known truth."""

import json
from pathlib import Path

import numpy as np
import pytest

from flame_fitting.run_pipeline import RunConfig, run

SURFACE_MM, VERTEX_MM = 0.5, 1.5
"""Medians on the face that a fit has to keep to."""


@pytest.mark.slow
@pytest.mark.parametrize("masks", [None, "FLAME_masks_standin.pkl"], ids=["without masks", "with masks"])
def test_a_flame_head_in_odd_units_and_axes(
    masks: str | None, test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Centimetres, z up, 165 cm above the origin; vertices in another order, split at the texture's seams."""
    place = test_data / "standin"
    avatar = place / "sample_heads" / "head_01.glb"
    if not avatar.is_file():
        pytest.skip(f"{avatar} is not there")
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path / "cache"))
    with np.load(avatar.with_name("head_01_gt.npz")) as data:
        np.savez(
            tmp_path / "ground_truth.npz", vertices=data["vertices_avatar"], mm_per_unit=1000 / float(data["scale"])
        )
    config = RunConfig(
        avatar,
        tmp_path / "run",
        head=str(place / "flame2023_standin.pkl"),
        flame_masks=place / masks if masks else None,
        ground_truth=tmp_path / "ground_truth.npz",
    )
    run(config)
    metrics = json.loads((tmp_path / "run" / "fit" / "metrics.json").read_text())
    assert metrics["mm_per_unit"] == pytest.approx(10, rel=0.05)
    assert metrics["head_model"]["teeth"] == "yes" and (metrics["head_model"]["masks"] == "none") == (masks is None)
    face = metrics["regions"]["face"]
    assert face["to_truth_surface_mm"]["median"] < SURFACE_MM and face["to_truth_mm"]["median"] < VERTEX_MM
    assert metrics["warnings"] == []
