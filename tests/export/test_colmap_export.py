"""COLMAP's model as this program and COLMAP's own library read it, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.capture.camera import project
from flame_fitting.capture.opening import open_capture
from flame_fitting.errors import InputError
from flame_fitting.export.colmap import check_colmap_target, write_colmap
from flame_fitting.export.frames import in_dataset, plan_frames
from flame_fitting.export.job import ExportJob
from flame_fitting.export.options import FormatOptions
from flame_fitting.manifest import Manifest
from flame_fitting.progress import Bar
from tests.export.test_nerf_dataset import Case, case  # noqa: F401


@pytest.fixture(scope="module")
def model(case: Case) -> Path:  # noqa: F811
    fit, capture, head, folder = case
    made = Manifest(stage="export")
    job = ExportJob(
        fit, head, capture, folder / "colmap", FormatOptions(format="colmap"), made, lambda: made, Bar(None, "")
    )
    summary = write_colmap(job)
    assert summary.written.startswith("13 pictures") and not summary.warnings
    return folder / "colmap"


def test_own_reader_sees_the_dataset_cameras(model: Path, case: Case) -> None:  # noqa: F811
    fit, capture, head, _ = case
    vertices = fit.vertices_head(head)[0]
    read = open_capture(model)
    frames = {frame.name: frame for frame in plan_frames(capture)}
    assert len(read.views) == len(frames) == 13
    for view in read.views:
        frame = frames[Path(view.file_path).name]
        wanted = in_dataset(frame.view, fit.head_from_world)
        np.testing.assert_allclose(
            project(vertices, view.K, view.world_to_camera),
            project(vertices, wanted.K, wanted.world_to_camera),
            atol=1e-6,
        )
        image, alpha = read.image_and_alpha(view)
        assert alpha.max() == 1 and image[:, alpha == 0].max() == 0  # on black


def test_colmap_itself_agrees(model: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap, which reads COLMAP's files")
    found = pycolmap.Reconstruction(str(model / "sparse" / "0"))
    assert found.num_cameras() == 1 and found.num_reg_images() == 13 and found.num_points3D() > 1000
    assert next(iter(found.cameras.values())).model.name == "PINHOLE"
    for image in found.images.values():
        marks = [mark for mark in image.points2D if mark.has_point3D()]
        assert len(marks) == len(image.points2D) > 100
        for mark in marks[:50]:
            np.testing.assert_allclose(image.project_point(found.points3D[mark.point3D_id].xyz), mark.xy, atol=1e-6)
    assert min(point.track.length() for point in found.points3D.values()) >= 2
    assert len({tuple(point.color) for point in found.points3D.values()}) > 1  # of the texture


def test_not_within_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    check_colmap_target(tmp_path / "colmap")
    (tmp_path / "export" / "transforms_train.json").write_text("{}")
    with pytest.raises(InputError, match=r"lies in .*export, a dataset"):
        check_colmap_target(tmp_path / "export" / "colmap")
