"""Texture layouts: read from files, made and kept, and what holds for all."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.head import unwrapping
from flame_fitting.head.completion import complete_flame
from flame_fitting.head.flame_files import read_flame
from flame_fitting.head.flat_map import flat_map
from flame_fitting.head.model import HeadData
from flame_fitting.head.unwrapping import flame_uv, unwrap
from tests.head.layouts import check_layout, coverage
from tests.head.ring_head import ring_head
from tests.toy import toy_head_data


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path / "cache"))
    return assets.cache_dir() / "uv"


@pytest.fixture(params=["standin/flame2023_standin.pkl", "flame2023_open/flame2023_open_reduced.npz"])
def flame(request: pytest.FixtureRequest, test_data: Path) -> HeadData:
    path = test_data / request.param
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return read_flame(path)


def without_uv(data: HeadData) -> HeadData:
    return replace(data, uv=None, uv_faces=None)


def write_obj(path: Path, data: HeadData, uv: np.ndarray, uv_faces: np.ndarray, normals: bool = False) -> Path:
    lines = [f"v {x} {y} {z}" for x, y, z in data.v_template] + [f"vt {u} {v}" for u, v in uv]
    tail = "/1" if normals else ""
    for corners, texels in zip(data.faces + 1, uv_faces + 1, strict=True):
        lines.append("f " + " ".join(f"{c}/{t}{tail}" for c, t in zip(corners, texels, strict=True)))
    path.write_text("# template\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_check_notices_overlaps() -> None:
    square = np.array([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]])
    assert coverage(square, np.array([[0, 1, 2], [0, 2, 3]]), 64).max() == 1
    assert coverage(square, np.array([[0, 1, 2], [0, 1, 3]]), 64).max() == 2
    filled = coverage(square, np.array([[0, 1, 2], [0, 2, 3]]), 64)
    assert filled.sum() == pytest.approx((0.8 * 64) ** 2, rel=0.04)


def test_flames_layout_is_made_of_few_charts(flame: HeadData) -> None:
    complete = complete_flame(without_uv(flame), add_teeth=True)
    assert complete.uv is not None and complete.uv_faces is not None
    check_layout(complete.uv, complete.uv_faces, complete.faces, 1024)
    # The cut down the back and the eyeballs' equators are all that is doubled.
    assert len(complete.uv) - len(complete.v_template) < 150
    # As the face is seen: the subject's left on the right, the forehead above the chin.
    place = {}
    for name in ("left_cheek", "right_cheek", "forehead", "chin"):
        inside = np.isin(complete.faces, complete.regions[name]).all(1)
        place[name] = complete.uv[complete.uv_faces[inside]].mean((0, 1))
    assert place["left_cheek"][0] > place["right_cheek"][0] + 0.1
    assert place["forehead"][1] > place["chin"][1] + 0.1


def test_no_part_of_the_face_is_starved(flame: HeadData) -> None:
    complete = complete_flame(without_uv(flame))
    assert complete.uv is not None and complete.uv_faces is not None
    a, b, c = complete.uv[complete.uv_faces].astype(np.float64).transpose(1, 0, 2)
    texels = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) * 2048**2
    p, q, r = complete.v_template[complete.faces].transpose(1, 0, 2)
    square_millimetres = 1e6 * np.linalg.norm(np.cross(q - p, r - p), axis=1)
    density = np.sqrt(texels / np.maximum(square_millimetres, 1e-6))
    for name in ("face", "nose", "lips", "eyelids", "ears", "scalp"):
        inside = np.isin(complete.faces, complete.regions[name]).all(1)
        assert np.median(density[inside]) > 2.5, name  # texels of a 2048 picture in a millimetre


def test_a_template_gives_its_own_layout(flame: HeadData, test_data: Path) -> None:
    path = test_data / "standin" / "head_template_mesh.obj"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    uv, uv_faces = flame_uv(without_uv(flame), template_obj=path)
    assert uv.shape == (5118, 2) and uv_faces.shape == (9976, 3)
    check_layout(uv, uv_faces, flame.faces)
    complete = complete_flame(flame, template_obj=path, add_teeth=True)
    assert complete.uv is not None and complete.uv_faces is not None
    check_layout(complete.uv, complete.uv_faces, complete.faces)
    assert complete.uv.shape == (5238, 2)


def test_flat_map_of_rings_needs_no_data(own_cache: Path) -> None:
    data = ring_head()
    uv, uv_faces = flame_uv(data)
    check_layout(uv, uv_faces, data.faces)
    assert flat_map(data.v_template, data.faces) is not None
    blind = ring_head(eyes=False)
    check_layout(*flame_uv(blind), blind.faces)


@pytest.mark.parametrize("metres", [1.0, 0.02])
def test_other_meshes_go_to_xatlas(metres: float) -> None:
    pytest.importorskip("xatlas")
    data = replace(without_uv(toy_head_data()), v_template=metres * toy_head_data().v_template)
    assert flat_map(data.v_template, data.faces) is None
    uv, uv_faces = flame_uv(data)
    check_layout(uv, uv_faces, data.faces)
    assert uv.max() <= 0.951  # room for teeth


def test_xatlas_takes_flame_too(flame: HeadData) -> None:
    pytest.importorskip("xatlas")
    uv, uv_faces = unwrap(flame.v_template.astype(np.float32), flame.faces)
    check_layout(uv, uv_faces, flame.faces)


def test_a_layout_is_made_once(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ring_head()
    first = flame_uv(data)
    assert len(list(own_cache.iterdir())) == 1

    def refuse(*arguments: object) -> None:
        raise AssertionError("made again")

    with monkeypatch.context() as patch:
        patch.setattr(unwrapping, "flat_map", refuse)
        again = flame_uv(data)
        for one, two in zip(first, again, strict=True):
            np.testing.assert_array_equal(one, two)
        with pytest.raises(AssertionError, match="made again"):
            flame_uv(replace(data, v_template=1.01 * data.v_template))
    next(own_cache.iterdir()).write_bytes(b"torn")
    for one, two in zip(first, flame_uv(data), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path / "file"))
    data = ring_head()
    check_layout(*flame_uv(data), data.faces)


def test_layouts_from_files_are_read_as_they_are(tmp_path: Path) -> None:
    data = toy_head_data()
    assert data.uv is not None and data.uv_faces is not None
    for normals in (False, True):
        path = write_obj(tmp_path / "template.obj", data, data.uv, data.uv_faces, normals)
        uv, uv_faces = flame_uv(without_uv(data), template_obj=path)
        np.testing.assert_allclose(uv, data.uv, atol=1e-6)
        np.testing.assert_array_equal(uv_faces, data.uv_faces)
    np.savez(tmp_path / "texture.npz", vt=data.uv, ft=data.uv_faces.astype(np.uint32), mean=np.zeros(3))
    uv, uv_faces = flame_uv(without_uv(data), texture_npz=tmp_path / "texture.npz")
    np.testing.assert_allclose(uv, data.uv, atol=1e-6)
    np.testing.assert_array_equal(uv_faces, data.uv_faces)
    # The model's own one counts where no file is given.
    np.testing.assert_array_equal(flame_uv(data)[0], data.uv)


def test_files_of_other_meshes_are_refused(tmp_path: Path) -> None:
    data = toy_head_data()
    assert data.uv is not None and data.uv_faces is not None
    shuffled = np.random.default_rng(0).permutation(len(data.faces))
    obj = tmp_path / "head_template_mesh.obj"
    write_obj(obj, replace(data, faces=data.faces[shuffled]), data.uv, data.uv_faces[shuffled])
    with pytest.raises(InputError, match=r"head_template_mesh\.obj: its 1280 triangles are not the head model's 1280"):
        flame_uv(data, template_obj=obj)
    for text in ("f 1 2 3\n", "f 1/1 2/2 3/3 4/4\n", "vt a b\n", "v 0 0 0\n"):
        obj.write_text(text)
        with pytest.raises(InputError, match=r"head_template_mesh\.obj: "):
            flame_uv(data, template_obj=obj)
    with pytest.raises(InputError, match="cannot be read"):
        flame_uv(data, template_obj=tmp_path / "none.obj")

    npz = tmp_path / "FLAME_texture.npz"
    for arrays, message in (
        ({"vt": data.uv}, "lacks ft"),
        ({"vt": data.uv, "ft": data.uv_faces[:-1]}, "where the head has"),
        ({"vt": data.uv, "ft": data.uv_faces[shuffled]}, "not in the order"),
        ({"vt": data.uv, "ft": data.uv_faces + 5}, "do not exist"),
        ({"vt": np.full_like(data.uv, np.nan), "ft": data.uv_faces}, "not finite"),
    ):
        np.savez(npz, **arrays)
        with pytest.raises(InputError, match=message):
            flame_uv(data, texture_npz=npz)
    npz.write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"not a readable \.npz"):
        flame_uv(data, texture_npz=npz)
