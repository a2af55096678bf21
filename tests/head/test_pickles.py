"""Pickles of head models: what real ones hold comes out as arrays, and nothing else comes in."""

import builtins
import inspect
import io
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from flame_fitting.errors import InputError
from flame_fitting.head.pickle_values import SparseColumns
from flame_fitting.head.pickles import decode_pickle, read_pickle
from tests.head.hostile import hostile


@pytest.fixture
def chumpy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real chumpy (its maintained fork) under chumpy's own name, as the files were written with."""
    # removed in Python 3.11, and called by chumpy while it is imported
    monkeypatch.setattr(inspect, "getargspec", inspect.getfullargspec, raising=False)
    fork = pytest.importorskip("chumpy_fork", reason="chumpy-fork is not installed (test extra)")
    from chumpy_fork import ch, reordering

    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    for name, module, cls in (("chumpy.ch", ch, ch.Ch), ("chumpy.reordering", reordering, reordering.Select)):
        alias = types.ModuleType(name)
        setattr(alias, cls.__name__, cls)
        monkeypatch.setitem(sys.modules, name, alias)
        monkeypatch.setattr(cls, "__module__", name)
        assert module.__name__.startswith("chumpy_fork")
    return fork


def model(chumpy: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a FLAME pickle holds, and the same as plain arrays."""
    rng = np.random.default_rng(0)
    arrays = {
        "v_template": rng.normal(size=(7, 3)),
        "shapedirs": rng.normal(size=(7, 3, 4)).astype(np.float32),
        "posedirs": np.asfortranarray(rng.normal(size=(7, 3, 36))),
        "f": rng.integers(0, 7, (5, 3)).astype(np.uint32),
        "kintree_table": np.array([[4294967295, 0], [0, 1]], dtype=np.uint32),
        "big_endian": rng.normal(size=3).astype(">f8"),
        "empty": np.zeros((0, 3)),
        "flags": np.array([True, False]),
    }
    regressor = rng.normal(size=(2, 7)) * (rng.random((2, 7)) < 0.4)
    held = arrays | {name: chumpy.array(arrays[name]) for name in ("v_template", "shapedirs")}
    held |= {"J_regressor": scipy.sparse.csc_matrix(regressor), "bs_style": "lbs", "scale": np.float64(0.5)}
    held |= {"part": held["v_template"][:, 1:], "names": [b"a", ("b", None, 3, 1.5, True)]}
    in_chumpy = {name: np.asarray(held[name].r) for name in ("v_template", "shapedirs", "part")}
    return held, arrays | in_chumpy | {"J_regressor": regressor}


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_real_chumpy_arrays_come_out_as_arrays(chumpy: Any, protocol: int, tmp_path: Path) -> None:
    held, arrays = model(chumpy)
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(held, protocol))
    content = read_pickle(path)
    assert set(content) == set(held)
    for name, expected in arrays.items():
        found = content[name].toarray() if isinstance(content[name], SparseColumns) else content[name]
        assert type(found) is np.ndarray and found.dtype.isnative
        assert found.dtype == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found, expected)
    assert content["scale"] == 0.5 and content["bs_style"] == "lbs"
    assert content["names"] == [b"a", ("b", None, 3, 1.5, True)]


def test_the_chumpy_pickles_say_chumpy(chumpy: Any) -> None:
    written = pickle.dumps(model(chumpy)[0], 2)
    assert b"cchumpy.ch\nCh\n" in written and b"cchumpy.reordering\nSelect\n" in written


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_python_2_wrote_the_bytes_of_arrays_as_text(protocol: int) -> None:
    raw = np.arange(-3.0, 3.0).tobytes()
    if protocol == 0:
        quoted = "'" + "".join(f"\\x{byte:02x}" for byte in raw) + "'"
        string = f"S{quoted}\n".encode()
    else:
        string = b"U" + bytes([len(raw)]) + raw
    written = (
        b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\nS'b'\np3\ntp4\nRp5\n(I1\n(I2\nI3\ntp6\n"
        b"cnumpy\ndtype\np7\n(S'f8'\np8\nI00\nI01\ntp9\nRp10\n(I3\nS'<'\np11\nNNNI-1\nI-1\nI0\ntp12\nbI00\n"
        + string
        + b"p13\ntp14\nb."
    )
    np.testing.assert_array_equal(decode_pickle(written, "p"), np.arange(-3.0, 3.0).reshape(2, 3))


@pytest.mark.parametrize("path", ["scipy.sparse.csc", "scipy.sparse._csc", "scipy.sparse"])
def test_sparse_matrices_of_all_times(path: str) -> None:
    matrix = scipy.sparse.random(5, 40, 0.3, "csc", rng=np.random.default_rng(0))
    own = b"cscipy.sparse._csc\n"
    written = pickle.dumps(
        matrix if isinstance(matrix, scipy.sparse.csc_matrix) else scipy.sparse.csc_matrix(matrix), 2
    )
    assert own in written
    content = decode_pickle(written.replace(own, f"c{path}\n".encode()), "p")
    np.testing.assert_array_equal(content.toarray(), matrix.toarray())


@pytest.mark.parametrize(
    "change",
    [
        {"indices": np.array([0, 9])},
        {"indices": np.array([0, -1])},
        {"indptr": np.array([0, 2])},
        {"indptr": np.array([0, 5, 2])},
        {"indptr": np.array([0, 1, 3])},
        {"data": np.ones(3)},
        {"shape": (2**25, 2)},
    ],
)
def test_sparse_matrices_whose_parts_do_not_fit_are_not_filled_in(change: dict) -> None:
    parts = {"data": np.ones(2), "indices": np.array([0, 1]), "indptr": np.array([0, 1, 2]), "shape": (2, 2)}
    SparseColumns(**parts).toarray()
    with pytest.raises(ValueError, match="sparse matrix"):
        SparseColumns(**(parts | change)).toarray()


@pytest.mark.parametrize("name", list(hostile(Path())))
def test_everything_else_is_refused_before_anything_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, path = tmp_path / "it_ran", tmp_path / "flame2023.pkl"
    path.write_bytes(hostile(mark)[name])
    imported: list[str] = []
    real_import = builtins.__import__

    def recording(module: str, *rest: Any, **options: Any) -> Any:
        imported.append(module)
        return real_import(module, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", recording)
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("a command ran"))
    with pytest.raises(InputError) as caught:
        read_pickle(path)
    monkeypatch.undo()
    assert not mark.exists()
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) < 500
    assert not {"posix", "os", "chumpy", "scipy", "pickle", "__builtin__", "chumpy.utils"} & set(imported)


def test_the_hostile_pickles_do_run_where_they_are_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "it_ran"
    ran = []
    for name, content in hostile(mark).items():
        if name not in ("os.system", "posix.system, protocol 0", "system by STACK_GLOBAL", "chain of reduces"):
            continue
        pickle.loads(content)
        assert mark.exists(), name
        mark.unlink()
        ran.append(name)
    assert len(ran) == 4


def test_a_pickle_cut_anywhere_is_refused(chumpy: Any) -> None:
    written = pickle.dumps(model(chumpy)[0], 2)
    for end in range(0, len(written) - 1, 37):
        with pytest.raises(InputError, match=r"p: (not a readable pickle|refused)"):
            decode_pickle(written[:end], "p")


def test_changed_bytes_never_do_more_than_be_refused(chumpy: Any) -> None:
    written = bytearray(pickle.dumps({key: value for key, value in model(chumpy)[0].items() if key != "posedirs"}, 2))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(600):
        changed = bytearray(written)
        for place in rng.integers(0, len(changed), 3):
            changed[place] = rng.integers(0, 256)
        try:
            decode_pickle(bytes(changed), "p")
        except InputError:
            refused += 1
    assert refused > 100


def test_arrays_of_objects_only_where_they_are_asked_for() -> None:
    inner = {"points": np.arange(6.0).reshape(2, 3), "kind": "full"}
    buffer = io.BytesIO()
    np.save(buffer, np.array(inner, dtype=object), allow_pickle=True)
    written = buffer.getvalue()
    body = written[np.lib.format.MAGIC_LEN + 2 + int.from_bytes(written[8:10], "little") :]
    with pytest.raises(InputError, match="not of numbers"):
        decode_pickle(body, "p")
    content = decode_pickle(body, "p", object_arrays=True)
    assert content["kind"] == "full"
    np.testing.assert_array_equal(content["points"], inner["points"])
    hiding = pickle.dumps(np.array([{"a": os.system}], dtype=object), 2)
    with pytest.raises(InputError, match="system"):
        decode_pickle(hiding, "p", object_arrays=True)


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"none\.pkl: cannot be read"):
        read_pickle(tmp_path / "none.pkl")
    (tmp_path / "large.pkl").write_bytes(bytes(100))
    monkeypatch.setattr("flame_fitting.head.pickles.MAX_FILE_BYTES", 99)
    with pytest.raises(InputError, match=r"large\.pkl: .* too much"):
        read_pickle(tmp_path / "large.pkl")


def test_the_licensed_files_of_the_test_data_are_read(test_data: Path) -> None:
    masks = read_pickle(test_data / "standin" / "FLAME_masks_standin.pkl")
    assert {"face", "neck", "scalp", "boundary"} <= set(masks)
    assert all(ids.dtype == np.int64 and ids.max() < 5023 for ids in masks.values())
