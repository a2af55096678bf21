"""One table of formats: every name has a writer, and options that a format does nothing with are refused."""

from pathlib import Path
from typing import get_args

import pytest

from flame_fitting.errors import InputError
from flame_fitting.export import formats
from flame_fitting.export.formats import FORMATS, Format, options_without_meaning
from flame_fitting.export.options import FormatName, FormatOptions
from flame_fitting.export_as_nerf_dataset import ExportConfig, export
from flame_fitting.manifest import Manifest
from flame_fitting.options import options_of


def config(**given: object) -> ExportConfig:
    return ExportConfig(src_folder=Path("fit"), tgt_folder=Path("out"), **given)  # type: ignore[arg-type]


def test_every_name_has_a_row_and_is_explained() -> None:
    assert set(get_args(FormatName)) == FORMATS.keys()
    known = {one.name for one in options_of(FormatOptions)}
    for chosen in FORMATS.values():
        assert chosen.options <= known
    # an option of a group that no row names would be taken for one of all formats
    assert known - {"format"} == set().union(*(chosen.options for chosen in FORMATS.values()))


def test_options_that_do_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bare, other = Format(FORMATS["vhap"].write, frozenset({"subset"})), FORMATS["vhap"]
    monkeypatch.setattr(formats, "FORMATS", {"vhap": bare, "other": other})
    given = config(subset="ci1", flame_mode="mesh", recenter=False)
    assert options_without_meaning(given) == [
        "--flame-mode does nothing with --format vhap: it is an option of other.",
        "--recenter does nothing with --format vhap: it is an option of other.",
    ]
    with pytest.raises(InputError, match="--flame-mode does nothing"):  # before anything is read
        export(given)
    monkeypatch.setattr(formats, "FORMATS", {"vhap": other})
    assert not options_without_meaning(given)


def test_another_format_in_the_folder_is_refused(tmp_path: Path) -> None:
    from flame_fitting import export_as_nerf_dataset as stage

    Manifest(stage="export", config={"format": "other"}).write(tmp_path / "out")
    with pytest.raises(InputError, match="holds an export in format other, and vhap beside it"):
        stage._check_format(tmp_path / "out", "vhap")
    Manifest(stage="export", config={}).write(tmp_path / "out")  # before there were formats
    stage._check_format(tmp_path / "out", "vhap")
