"""The whole way from a real avatar's file to the rigged one."""

from pathlib import Path

import numpy as np
import pytest

import flame_fitting
from flame_fitting.export_as_nerf_dataset import ExportConfig, export
from flame_fitting.manifest import read_manifest
from tests.export.glb_evaluator import EvaluatedGlb


@pytest.mark.slow
def test_a_valid_head(test_data: Path, tmp_path: Path) -> None:
    avatar = test_data / "avatars" / "valid_avatars" / "Black_M_1_Casual_head.glb"
    if not avatar.is_file():
        pytest.skip(f"{avatar} is not there")
    flame_fitting.fit_head(avatar, output=tmp_path / "run")
    export(ExportConfig(src_folder=tmp_path / "run" / "fit", tgt_folder=tmp_path / "rigged", format="rigged-avatar"))
    made = read_manifest(tmp_path / "rigged")
    assert made is not None and set(made.result["torn_edges"].values()) == {0}
    for name in ("animation.jpg", "animation.gif", "correspondence.npz"):
        assert (tmp_path / "rigged" / name).stat().st_size > 10_000
    moved = {}
    for part in ("h_TeethUp", "h_TeethDown", "h_L_eye", "H_DDS_HighRes"):
        glb = EvaluatedGlb(tmp_path / "rigged" / "avatar.glb", part)
        before = glb.vertices()
        glb.turn("jaw", [0.25, 0, 0])
        moved[part] = np.linalg.norm(glb.vertices() - before, axis=1)
    assert moved["h_TeethUp"].max() < 1e-6 and moved["h_L_eye"].max() < 1e-6
    assert moved["h_TeethDown"].min() > 0.005 and moved["H_DDS_HighRes"].max() > 0.01
