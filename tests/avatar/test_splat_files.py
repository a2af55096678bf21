"""Splats from every kind of file: what is in them, and what is said where they are damaged."""

import contextlib
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from flame_fitting.avatar.splat_files import is_splat_file, read_splats
from flame_fitting.avatar.splats import Splats
from flame_fitting.errors import InputError
from tests.avatar.splat_writers import columns, degree_of, some_splats, write_ply, write_splat, write_spz

REAL = Path(__file__).parent / "splat_files"
# signs of the basis functions where y and z are turned over
TURNED = np.array([1, -1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1])


def read(path: Path, notes: list[str] | None = None) -> Splats:
    content, suffix = path.read_bytes(), path.suffix.lstrip(".")
    assert is_splat_file(content, suffix)
    return read_splats(content, path, suffix, ([] if notes is None else notes).append)


def assert_alike(one: Splats, two: Splats, places: float, turns: float, sizes: float, levels: float) -> None:
    """Same splats in the same order: places (units), rotations, logarithms of scales, opacities and coefficients."""
    np.testing.assert_allclose(one.means, two.means, atol=places)
    np.testing.assert_allclose(np.linalg.norm(one.quats, axis=1), 1, atol=1e-6)
    cosine = np.abs((one.quats * two.quats).sum(1))
    assert cosine.min() > 1 - turns**2
    np.testing.assert_allclose(np.log(one.scales), np.log(two.scales), atol=sizes)
    np.testing.assert_allclose(one.opacities, two.opacities, atol=levels)
    np.testing.assert_allclose(one.sh, two.sh, atol=4 * levels)


@pytest.mark.parametrize("form", ["binary_little_endian", "binary_big_endian", "ascii"])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_3dgs_ply(tmp_path: Path, form: str, degree: int) -> None:
    splats = degree_of(some_splats(), degree)
    found = read(write_ply(tmp_path / "a.ply", columns(splats), form))
    assert found.degree == degree and not found.antialiased
    assert_alike(found, splats, 1e-7, 1e-3, 1e-5, 1e-6)


def test_what_marks_a_ply_file_of_splats(tmp_path: Path) -> None:
    sphere = trimesh.creation.icosphere(subdivisions=1)
    for encoding in ("ascii", "binary"):
        assert not is_splat_file(sphere.export(file_type="ply", encoding=encoding), "ply")
    cloud = trimesh.PointCloud(sphere.vertices, colors=np.full((len(sphere.vertices), 4), 255, np.uint8))
    assert not is_splat_file(cloud.export(file_type="ply"), "ply")
    assert not is_splat_file(b"ply\nrot_0 scale_0", "ply") and not is_splat_file(b"", "ply")
    # the words alone are no properties of vertices
    text = b"ply\nformat ascii 1.0\ncomment rot_0\nelement rot_0 0\nproperty float rot_0\nend_header\n"
    assert not is_splat_file(text, "ply")
    assert is_splat_file(write_ply(tmp_path / "a.ply", columns(some_splats(5))).read_bytes(), "ply")
    assert is_splat_file((REAL / "some.compressed.ply").read_bytes(), "ply")


def test_flat_splats_of_2dgs(tmp_path: Path) -> None:
    splats, notes = some_splats(), []
    values = {name: value for name, value in columns(splats).items() if name != "scale_2"}
    found = read(write_ply(tmp_path / "a.ply", values), notes)
    np.testing.assert_allclose(found.scales[:, :2], splats.scales[:, :2], rtol=1e-5)
    np.testing.assert_allclose(found.scales[:, 2], 1e-3 * splats.scales[:, :2].min(1), rtol=1e-4)
    assert notes == ["splats without thickness (2DGS)"]


def test_splat_records(tmp_path: Path) -> None:
    splats = degree_of(some_splats(), 0)
    assert_alike(read(write_splat(tmp_path / "a.splat", splats)), splats, 1e-7, 0.015, 1e-5, 0.0045)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("degree", [0, 2, 3])
def test_spz(tmp_path: Path, version: int, degree: int) -> None:
    splats = degree_of(some_splats(), degree)
    found = read(write_spz(tmp_path / "a.spz", splats, version))
    assert found.degree == degree
    # eight bits a part of a rotation that leave the largest out lose most where it is small
    assert_alike(found, splats, 3e-4, 0.06 if version < 3 else 2e-3, 0.04, 0.014)


def test_spz_says_how_it_was_trained_and_may_have_a_degree_more(tmp_path: Path) -> None:
    splats, notes = some_splats(degree=4), []
    found = read(write_spz(tmp_path / "a.spz", splats, 4, flags=3), notes)
    assert found.antialiased and found.degree == 3
    assert notes == [
        "extensions of the .spz file are not read",
        "spherical harmonics of a higher degree than 3 left out",
    ]


@pytest.mark.parametrize("name", ["some_3.spz", "some_4.spz"])
def test_spz_of_another_program(name: str) -> None:
    found, splats = read(REAL / name), some_splats()
    means, quats = splats.means * [1, -1, -1], splats.quats * np.array([1, 1, -1, -1], np.float32)
    expected = Splats(means, splats.scales, quats, splats.opacities, splats.sh * TURNED[:, None].astype(np.float32))
    # it keeps five bits of the first degree's coefficients and four of the others'
    assert_alike(found, expected, 3e-4, 2e-3, 0.04, 0.017)


def test_compressed_ply_of_another_program() -> None:
    found, splats = read(REAL / "some.compressed.ply"), some_splats()
    apart = np.linalg.norm(found.means[:, None] - splats.means[None], axis=2)
    order = apart.argmin(axis=1)
    assert sorted(order) == list(range(len(splats)))
    assert_alike(found, splats.taken(order), 2e-3, 3e-3, 4e-3, 0.006)


@pytest.mark.parametrize("name", ["lps_splat_sh3", "valid_asian_f2_splat_sh3"])
def test_shared_splats(test_data: Path, name: str) -> None:
    notes: list[str] = []
    found = read(test_data / f"avatars/splats/{name}.ply", notes)
    assert len(found) in (30000, 39999) and found.degree == 3 and not notes
    flat = np.sort(found.scales, axis=1)
    assert (flat[:, 0] < 0.5 * flat[:, 1]).mean() > 0.99


def message(path: Path) -> str:
    with pytest.raises((InputError, ValueError)) as caught:
        read(path)
    assert caught.type is not InputError or str(path) in str(caught.value)
    return str(caught.value)


def files(folder: Path) -> list[Path]:
    splats = some_splats(50)
    paths = [write_ply(folder / f"{form}.ply", columns(splats), form) for form in ("binary_little_endian", "ascii")]
    paths += [write_spz(folder / f"{version}.spz", splats, version) for version in (1, 2, 3, 4)]
    (folder / "packed.ply").write_bytes((REAL / "some.compressed.ply").read_bytes())
    return [*paths, folder / "packed.ply", write_splat(folder / "a.splat", splats)]


def test_files_cut_short(tmp_path: Path) -> None:
    for path in files(tmp_path):
        content = path.read_bytes()
        cut = tmp_path / f"cut{path.suffix}"
        for size in (len(content) // 2 + 7, len(content) * 9 // 10 + 1):
            cut.write_bytes(content[:size])
            message(cut)


def test_flipped_bytes_never_end_in_another_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for path in files(tmp_path):
        content = np.frombuffer(path.read_bytes(), np.uint8)
        for size in (64, 4000):  # the header, anywhere
            for _ in range(20):
                damaged = content.copy()
                damaged[rng.integers(0, min(size, len(content)), 4)] = rng.integers(0, 256, 4)
                target = tmp_path / f"damaged{path.suffix}"
                target.write_bytes(damaged.tobytes())
                # `loading` makes an InputError of them all
                with contextlib.suppress(InputError, ValueError, KeyError, IndexError, EOFError):
                    read_splats(target.read_bytes(), target, path.suffix.lstrip("."), [].append)


def test_more_than_there_is_asks_for_no_memory(tmp_path: Path) -> None:
    splats = some_splats(20)
    assert "cannot hold" in message(write_spz(tmp_path / "a.spz", splats, 3, count=5_000_000))
    assert "cannot hold" in message(write_spz(tmp_path / "a.spz", splats, 4, count=5_000_000))
    assert "at most 10,000,000" in message(write_spz(tmp_path / "a.spz", splats, 4, count=2**32 - 1))
    head = struct.pack("<IIIBBBB", 0x5053474E, 3, 20, 3, 12, 0, 0)
    (tmp_path / "a.spz").write_bytes(gzip.compress(head + bytes(range(180)) + bytes(20 * 56) + bytes(1 << 24)))
    assert len(read(tmp_path / "a.spz")) == 20
    path = write_ply(tmp_path / "a.ply", columns(splats))
    path.write_bytes(path.read_bytes().replace(b"element vertex 20", b"element vertex 2000000000"))
    assert "cut short" in message(path)


def test_no_splats_unknown_versions_and_other_programs_words(tmp_path: Path) -> None:
    none = {name: value[:0] for name, value in columns(some_splats(1)).items()}
    assert "no splats in it" in message(write_ply(tmp_path / "a.ply", none))
    assert "SPZ version 7, and 1 to 4 are read" in message(write_spz(tmp_path / "a.spz", some_splats(9), 7))
    (tmp_path / "a.spz").write_bytes(gzip.compress(b"hello, I am no splat at all"))
    assert "no SPZ header" in message(tmp_path / "a.spz")
    (tmp_path / "a.splat").write_bytes(b"\x00\x01\x02" * 100)
    assert "300 bytes are not whole splats of 32" in message(tmp_path / "a.splat")
    (tmp_path / "a.splat").write_bytes(b"\xff" * 320)
    assert "not numbers" in message(tmp_path / "a.splat")


def test_colours_that_are_no_spherical_harmonics(tmp_path: Path) -> None:
    values = columns(some_splats())
    for gone in (["f_dc_0", "f_dc_1", "f_dc_2"], ["f_rest_44"], ["f_rest_3"]):
        kept = {name: value for name, value in values.items() if name not in gone}
        assert "no spherical harmonics: looked for f_dc_0" in message(write_ply(tmp_path / "a.ply", kept))
    more = values | {f"f_dc_{k}": values["f_dc_0"] for k in range(3, 32)}
    assert "found 32 f_dc_* and 45 f_rest_*" in message(write_ply(tmp_path / "a.ply", more))
    del values["opacity"]
    assert "lacks opacity" in message(write_ply(tmp_path / "a.ply", values))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", np.nan),
        ("scale_1", np.inf),
        ("scale_1", 1e4),
        ("opacity", np.nan),
        ("f_rest_9", -np.inf),
        ("rot_2", np.nan),
    ],
)
def test_values_that_are_not_numbers(tmp_path: Path, name: str, value: float) -> None:
    splats, notes = some_splats(1000), []
    values = columns(splats)
    values[name] = values[name].copy()
    values[name][[3, 70]] = value
    found = read(write_ply(tmp_path / "a.ply", values), notes)
    assert len(found) == 998 and notes == ["2 splats with values that are not numbers left out"]
    values[name][::20] = value
    assert "not numbers" in message(write_ply(tmp_path / "a.ply", values))


def test_rotations_of_no_length_and_huge_splats(tmp_path: Path) -> None:
    values, notes = columns(some_splats(1000)), []
    for k in range(4):
        values[f"rot_{k}"] = np.where(np.arange(1000) == 5, 0.0, values[f"rot_{k}"])
    values["scale_0"] = np.where(np.arange(1000) == 9, 3.0, values["scale_0"])
    found = read(write_ply(tmp_path / "a.ply", values), notes)
    assert len(found) == 998 and "1 splats that are larger than the avatar left out" in notes
    linear = columns(some_splats(1000))
    linear |= {f"scale_{k}": np.exp(linear[f"scale_{k}"]) for k in range(3)}
    assert "these are no scales as 3DGS writes them" in message(write_ply(tmp_path / "a.ply", linear))
    values = columns(some_splats(10))
    values |= {name: np.zeros(10) for name in "xyz"}
    assert "in one place" in message(write_ply(tmp_path / "a.ply", values))
