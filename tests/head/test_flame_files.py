"""Files of head models: what pickles and .npz files come to, what is refused, and what the cache does."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from flame_fitting import assets
from flame_fitting.errors import InputError
from flame_fitting.head.flame_files import read_flame, read_masks
from tests.head.flame_like import flame_arrays, write_npz
from tests.head.hostile import hostile


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_pickle(path: Path, **changes: Any) -> Path:
    """A FLAME pickle with a sparse regressor."""
    arrays = flame_arrays() | {"J_regressor": scipy.sparse.csc_matrix(flame_arrays()["J_regressor"])} | changes
    path.write_bytes(pickle.dumps({key: value for key, value in arrays.items() if value is not None}, 2))
    return path


def equal(found: Any, expected: dict[str, Any]) -> None:
    n_shape = int(expected["n_shape"])
    np.testing.assert_array_equal(found.v_template, expected["v_template"])
    np.testing.assert_array_equal(found.faces, expected["f"])
    np.testing.assert_allclose(found.shapedirs, expected["shapedirs"][..., :n_shape], rtol=1e-6)
    np.testing.assert_allclose(found.exprdirs, expected["shapedirs"][..., n_shape:], rtol=1e-6)
    np.testing.assert_allclose(found.posedirs, expected["posedirs"], rtol=1e-6)
    np.testing.assert_allclose(found.J_regressor, expected["J_regressor"], rtol=1e-12)
    np.testing.assert_array_equal(found.weights, expected["weights"])
    assert found.parents == [-1, 0, 1, 1, 1]
    assert found.faces.dtype == np.int64


def test_a_pickle_and_an_npz_give_the_same(tmp_path: Path) -> None:
    for path in (write_pickle(tmp_path / "a.pkl"), write_npz(tmp_path / "a.npz")):
        equal(read_flame(path), flame_arrays())


@pytest.mark.parametrize("root", [-1, 4294967295, 0])
@pytest.mark.parametrize("transposed", [False, True])
def test_layouts_in_the_wild(root: int, transposed: bool, tmp_path: Path) -> None:
    regressor = flame_arrays()["J_regressor"]
    table = np.array([[root, 0, 1, 1, 1], [0, 1, 2, 3, 4]], dtype=np.int64)
    path = write_npz(tmp_path / "a.npz", J_regressor=regressor.T if transposed else regressor, kintree_table=table)
    equal(read_flame(path), flame_arrays())


def test_the_split_is_300_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    directions = np.zeros((642, 3, 310), dtype=np.float32)
    data = read_flame(write_npz(tmp_path / "a.npz", shapedirs=directions, n_shape=None, n_expr=None))
    assert (data.shapedirs.shape[-1], data.exprdirs.shape[-1]) == (300, 10)
    data = read_flame(write_npz(tmp_path / "b.npz", shapedirs=directions, n_shape=np.array(60), n_expr=np.array(0)))
    assert (data.shapedirs.shape[-1], data.exprdirs.shape[-1]) == (60, 0)
    with pytest.raises(InputError, match=r"c\.npz: .*n_shape 300 and n_expr 100 for 310 components"):
        read_flame(write_npz(tmp_path / "c.npz", shapedirs=directions, n_shape=np.array(300), n_expr=np.array(100)))


def test_a_pickle_is_converted_once_and_again_when_it_changes(tmp_path: Path, own_cache: Path, monkeypatch) -> None:
    path = write_pickle(tmp_path / "flame2023.pkl")
    first = read_flame(path)
    (cached,) = (own_cache / "heads").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("flame_fitting.head.flame_files.read_pickle", lambda path: pytest.fail("read again"))
        second = read_flame(path)
    np.testing.assert_array_equal(first.shapedirs, second.shapedirs)
    np.testing.assert_array_equal(first.J_regressor, second.J_regressor)
    assert first.file_hash == second.file_hash
    cached.write_bytes(b"half a file")
    equal(read_flame(path), flame_arrays())
    write_pickle(path, v_template=flame_arrays()["v_template"] * 1.01)
    assert read_flame(path).file_hash != first.file_hash
    np.testing.assert_allclose(read_flame(path).v_template, 1.01 * first.v_template)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLAME_FITTING_CACHE", str(tmp_path / "file"))
    equal(read_flame(write_pickle(tmp_path / "a.pkl")), flame_arrays())


ARRAYS = flame_arrays()
BROKEN = {
    "lacks v_template": {"v_template": None},
    "lacks J_regressor, weights": {"J_regressor": None, "weights": None},
    "v_template has shape": {"v_template": ARRAYS["v_template"][:, :2]},
    "shapedirs has shape": {"shapedirs": ARRAYS["shapedirs"][:5]},
    "posedirs has shape": {"posedirs": ARRAYS["posedirs"][..., :27]},
    "J_regressor has shape": {"J_regressor": ARRAYS["J_regressor"][:4]},
    "weights has shape": {"weights": ARRAYS["weights"][:, :4]},
    "not finite": {"posedirs": ARRAYS["posedirs"] * np.nan},
    "weights of a vertex": {"weights": ARRAYS["weights"] * 2},
    "row of J_regressor": {"J_regressor": ARRAYS["J_regressor"] * 2},
    "vertices that do not exist": {"f": ARRAYS["f"] + 1000},
    "f has shape": {"f": ARRAYS["f"][:, :2]},
    "f holds no indices": {"f": ARRAYS["f"] + 0.5},
    "8 joints": {"kintree_table": np.array([[-1, 0, 0, 0, 0, 0, 0, 0], range(8)])},
    "parent that does not come before": {"kintree_table": np.array([[-1, 0, 1, 4, 1], range(5)])},
    "begin with the root": {"kintree_table": np.array([[3, 0, 1, 1, 1], range(5)])},
    "region nose names vertices": {"region_nose": np.array([642])},
    "only one of uv": {"uv": np.zeros((3, 2))},
    "its texture cannot be read": {"texture_png": np.zeros(10, dtype=np.uint8)},
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_model_that_does_not_fit_together_is_refused_with_its_name(message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.npz: ") as caught:
        read_flame(write_npz(tmp_path / "a.npz", **BROKEN[message]))
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["os.system", "array of objects", "garbage", "nothing", "no pickle"])
def test_hostile_pickles_leave_no_cache(name: str, tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "flame2023.pkl"
    path.write_bytes(hostile(tmp_path / "it_ran")[name])
    with pytest.raises(InputError, match=r"flame2023\.pkl: "):
        read_flame(path)
    assert not own_cache.exists() and not (tmp_path / "it_ran").exists()


def test_pickles_of_other_things(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps([np.zeros(3)], 2))
    with pytest.raises(InputError, match="no arrays by name"):
        read_flame(path)
    write_pickle(path, weights="none")
    with pytest.raises(InputError, match="weights holds no numbers"):
        read_flame(path)


def test_npz_files_that_hold_objects_or_unpack_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", **(flame_arrays() | {"f": np.array([{}], dtype=object)}))
    with pytest.raises(InputError, match=r"a\.npz: not a readable"):
        read_flame(tmp_path / "a.npz")
    write_npz(tmp_path / "b.npz")
    monkeypatch.setattr("flame_fitting.head.flame_files._MAX_NPZ_BYTES", 1000)
    with pytest.raises(InputError, match=r"b\.npz: .*unpacks to"):
        read_flame(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"c\.npz: not a readable"):
        read_flame(tmp_path / "c.npz")


def test_masks(tmp_path: Path) -> None:
    masks = {"face": np.array([3, 5]), "nose": np.array([], dtype=np.int64)}
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(masks, 2))
    found = read_masks(tmp_path / "m.pkl")
    assert set(found) == {"face", "nose"} and found["face"].tolist() == [3, 5]
    for wrong in ({"face": np.array([5023])}, {"face": np.array([-1])}, {"face": np.array([0.5])}, {}, [1], {"a": "b"}):
        (tmp_path / "m.pkl").write_bytes(pickle.dumps(wrong, 2))
        with pytest.raises(InputError, match=r"m\.pkl: "):
            read_masks(tmp_path / "m.pkl")
    with pytest.raises(InputError, match=r"n\.pkl: no such masks file"):
        read_masks(tmp_path / "n.pkl")


def test_the_stand_in_is_read_as_flame_is(test_data: Path) -> None:
    data = read_flame(test_data / "standin" / "flame2023_standin.pkl")
    assert data.v_template.shape == (5023, 3) and data.faces.shape == (9976, 3)
    assert data.shapedirs.shape == (5023, 3, 300) and data.exprdirs.shape == (5023, 3, 100)
    assert data.name == "flame2023_standin"
    reduced = read_flame(test_data / "flame2023_open" / "flame2023_open_reduced.npz")
    assert reduced.shapedirs.shape == (5023, 3, 60) and reduced.exprdirs.shape == (5023, 3, 0)
    np.testing.assert_array_equal(data.faces, reduced.faces)


def test_the_open_head_is_a_file_like_others() -> None:
    data = read_flame(assets.open_head_path(), "open")
    assert data.name == "open" and data.regions and data.uv is not None and data.texture is not None
