"""Splats that were optimised on pictures, as people make them: their fit against the mesh that the pictures show.

tests/avatar/splat_files/demo_avatar.ply is made on a GPU (its README says how) from the demo avatar.
"""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.avatar.loading import load_avatar
from flame_fitting.capture.camera import transform_points
from flame_fitting.cli import main
from flame_fitting.fit.sources import open_fit_and_head

SPLATS = Path(__file__).parent / "avatar" / "splat_files" / "demo_avatar.ply"


@pytest.mark.slow
@pytest.mark.skipif(not SPLATS.is_file(), reason=f"{SPLATS.name} is made on a GPU: see its README")
def test_optimised_splats_are_near_their_true_surface(tmp_path: Path) -> None:
    assert main(["make-demo-avatar", "--output", str(tmp_path / "demo")]) == 0
    assert main(["render", str(SPLATS), "--output", str(tmp_path / "render"), "--heldout-views", "0"]) == 0
    assert main(["detect", str(tmp_path / "render")]) == 0
    assert main(["fit", str(tmp_path / "render"), "--output", str(tmp_path / "fit"), "--no-photometric"]) == 0
    fit, head = open_fit_and_head(tmp_path / "fit")
    mesh, vertices = load_avatar(tmp_path / "demo" / "demo_avatar.glb"), fit.vertices_head(head)[0]
    points = transform_points(fit.head_from_world, mesh.points)
    surface = mesh.seen_surface(points[np.linalg.norm(points, axis=1) < 0.5], fit.head_from_world)
    assert surface is not None
    apart = 1000 * surface.distance(vertices[head.region_mask("face").numpy()])
    assert np.median(apart) < 1.0
    assert np.quantile(apart, 0.95) < 3.0
