"""OBJ and PLY of a fit: spaces, poses, order, colours, and what other readers make of them."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from flame_fitting.errors import InputError
from flame_fitting.export.baking.baked import baked_texture
from flame_fitting.export.job import ExportJob
from flame_fitting.export.meshes import check_space, posed_fit, write_obj_format, write_ply_format
from flame_fitting.export.options import FormatOptions
from flame_fitting.export.ply import write_ply
from flame_fitting.manifest import Manifest
from flame_fitting.progress import Bar
from tests.export.test_nerf_dataset import Case, case  # noqa: F401


def written(case: Case, tmp_path: Path, **given: object) -> trimesh.Trimesh:  # noqa: F811
    fit, capture, head, _ = case
    options, made = FormatOptions(**given), Manifest(stage="export")  # type: ignore[arg-type]
    job = ExportJob(fit, head, capture, tmp_path / "mesh", options, made, lambda: made, Bar(None, ""))
    (write_obj_format if options.format == "obj" else write_ply_format)(job)
    return trimesh.load(tmp_path / "mesh" / f"head.{options.format}", process=False, maintain_order=True)


@pytest.mark.parametrize("kind", ["obj", "ply"])
def test_spaces_and_poses(case: Case, tmp_path: Path, kind: str) -> None:  # noqa: F811
    fit, _, head, _ = case
    tolerance = {"rtol": 1e-5, "atol": 1e-6}
    mesh = written(case, tmp_path, format=kind)
    np.testing.assert_array_equal(mesh.faces, head.faces.numpy())
    np.testing.assert_allclose(mesh.vertices, fit.vertices_world(head)[0], rtol=1e-5, atol=1e-4)
    mesh = written(case, tmp_path, format=kind, space="head")
    np.testing.assert_allclose(mesh.vertices, fit.vertices_head(head)[0], **tolerance)
    rest = posed_fit(fit, "neutral").vertices_head(head)[0]
    assert np.abs(rest - fit.vertices_head(head)[0]).max() > 1e-3  # its jaw was open
    mesh = written(case, tmp_path, format=kind, pose="zero")  # in head space by itself
    np.testing.assert_allclose(mesh.vertices, rest, **tolerance)  # a static head is not placed by its root


def test_zero_is_not_placed_and_neutral_is(case: Case) -> None:  # noqa: F811
    fit, _, head, _ = case
    moved = {"rotation": np.array([[0.0, 0.5, 0.0]]), "translation": np.array([[0.0, 0.1, 0.0]])}
    fit.parameters, kept = fit.parameters | moved, fit.parameters
    try:
        neutral, zero = (posed_fit(fit, pose) for pose in ("neutral", "zero"))
        assert (neutral.parameters["rotation"] == moved["rotation"]).all() and not neutral.parameters["expr"].any()
        assert not zero.parameters["rotation"].any() and not zero.parameters["translation"].any()
        assert np.abs(neutral.vertices_head(head) - zero.vertices_head(head)).max() > 0.05
    finally:
        fit.parameters = kept


def test_texture_comes_along(case: Case, tmp_path: Path) -> None:  # noqa: F811
    fit, capture, head, _ = case
    mesh = written(case, tmp_path, format="obj", texture_size=256)
    baked = baked_texture(fit, head, capture, 256)
    np.testing.assert_array_equal(np.asarray(mesh.visual.material.image.convert("RGB")), baked)
    np.testing.assert_allclose(mesh.visual.uv, head.uv.numpy(), atol=1e-6)
    colors = written(case, tmp_path / "b", format="ply").visual.vertex_colors
    assert len(np.unique(colors, axis=0)) > 2


def test_a_head_that_is_not_placed_has_no_place_in_the_avatar() -> None:
    with pytest.raises(InputError, match="--space avatar with --pose zero"):
        check_space("avatar", "zero")
    assert (check_space(None, "zero"), check_space(None, "fit")) == ("head", "avatar")


def test_far_meshes_keep_their_shape(tmp_path: Path) -> None:
    vertices = np.random.default_rng(0).random((20, 3)) + 1e6
    write_ply(tmp_path / "far.ply", vertices, np.arange(18).reshape(6, 3))
    np.testing.assert_allclose(trimesh.load(tmp_path / "far.ply", process=False).vertices, vertices, rtol=0, atol=1e-9)
