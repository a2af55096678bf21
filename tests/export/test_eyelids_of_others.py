"""Two coefficients for the lids, in the files of programs that have them."""

from pathlib import Path

import numpy as np
import pytest

from flame_fitting.errors import InputError
from tests.export.test_dialects import load, random_poses, run, vhap_file


def test_eyelids_are_kept_by_name(tmp_path: Path) -> None:
    """Of metrical-tracker, Pixel3DMM and this program's fits; others' readers of VHAP's keys do not ask for it."""
    poses = random_poses(0)
    eyelids = np.random.default_rng(0).uniform(size=(len(poses["expr"]), 2))
    vhap_file(tmp_path / "v.npz", eyelids=eyelids, rotation=np.zeros_like(poses["turn"]))
    assert not any("eyelids" in text for text in run(tmp_path / "v.npz", tmp_path / "w.npz", "vhap").warnings)
    np.testing.assert_allclose(load(tmp_path / "w.npz")["eyelids"], eyelids, atol=1e-6)
    assert "each program has its own" in "\n".join(run(tmp_path / "v.npz", tmp_path / "p", "pixel3dmm").warnings)
    text = "\n".join(run(tmp_path / "p", tmp_path / "back.npz", "vhap").warnings)
    assert "eyelids are written beside VHAP's keys; other programs ignore them" in text
    np.testing.assert_allclose(load(tmp_path / "back.npz")["eyelids"], eyelids, atol=1e-6)
    assert "eyelids" in "\n".join(run(tmp_path / "v.npz", tmp_path / "x.npz", "nersemble").warnings)
    for wrong in (eyelids[:, :1], eyelids[:0], np.full_like(eyelids, np.nan)):
        vhap_file(tmp_path / "wrong.npz", eyelids=wrong)
        with pytest.raises(InputError, match="eyelids"):
            run(tmp_path / "wrong.npz", tmp_path / "y.npz", "vhap")
