"""avatar.json: its keys, old files, and files that say something else than they should."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flame_fitting.capture.avatar_record import AvatarRecord, Direction, FaceRecord, ViewAngles, read_avatar_record
from flame_fitting.errors import InputError

MATRIX = np.diag([2.0, 2.0, 2.0, 1.0])
FULL = AvatarRecord(
    file="a.glb",
    sha256="ab",
    format="glb",
    notes=("two parts",),
    warnings=(),
    face=FaceRecord(
        head_from_world=MATRIX,
        mm_per_unit=2000.0,
        up=Direction("+Y", np.array([0.0, 1.0, 0.0])),
        forward=Direction("+Z", np.array([0.0, 0.0, 1.0])),
        residual_mm=1.5,
        residual_relative=0.02,
        shading="unlit",
        views_with_face=7,
        probes_rendered=1,
        probes_with_face=({"part": "whole", "direction": [0.0, 0.0, 1.0], "residual": None, "shading": "unlit"},),
    ),
    head_from_world=MATRIX,
    landmark_shading="lit",
    views=(ViewAngles("landmark", -60.0, 15.0), ViewAngles("fit", 0.0, 0.0)),
)


def test_the_keys_are_those_that_captures_have_always_had(tmp_path: Path) -> None:
    content = FULL.as_json()
    assert list(content) == [
        *("file", "sha256", "format", "notes", "warnings", "face", "head_from_world", "landmark_shading", "views")
    ]
    assert list(content["face"]) == [
        *("head_from_world", "mm_per_unit", "up", "forward", "residual_mm", "residual_relative", "shading"),
        *("views_with_face", "probes_rendered", "probes_with_face"),
    ]
    assert content["face"]["up"] == {"axis": "+Y", "vector": [0.0, 1.0, 0.0]}
    assert content["views"][0] == {"role": "landmark", "yaw": -60.0, "pitch": 15.0}
    (tmp_path / "avatar.json").write_text(json.dumps(content))
    back = read_avatar_record(tmp_path / "avatar.json", "Again.")
    assert back.as_json() == content
    assert back.face is not None and back.face.head_from_world is not None
    np.testing.assert_array_equal(back.face.head_from_world, MATRIX)
    assert back.views == FULL.views and back.warnings == ()


def test_no_file_and_an_older_file_have_fields_that_are_none(tmp_path: Path) -> None:
    assert read_avatar_record(tmp_path / "avatar.json", "").as_json() == {} == AvatarRecord().as_json()
    (tmp_path / "avatar.json").write_text(json.dumps({"format": "obj", "up": [0, 1, 0], "face": {"mm_per_unit": 1}}))
    found = read_avatar_record(tmp_path / "avatar.json", "")
    assert found.as_json() == {"format": "obj", "face": {"mm_per_unit": 1.0}}
    assert found.head_from_world is None and found.views is None and found.warnings is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"format": 3}, "format is not text"),
        ({"warnings": "x"}, "warnings is not a list of texts"),
        ({"warnings": [1]}, "warnings is not a list of texts"),
        ({"head_from_world": [[1, 2], [3, 4]]}, "head_from_world is not a 4x4 similarity"),
        ({"head_from_world": np.zeros((4, 4)).tolist()}, "head_from_world is not a 4x4 similarity"),
        ({"head_from_world": "none"}, "head_from_world is not a 4x4 similarity"),
        ({"head_from_world": [[1, 2], [3]]}, "head_from_world is not a 4x4 similarity"),
        ({"face": []}, "face is not an object"),
        ({"face": {"up": {"axis": "+Y", "vector": [1, 2]}}}, "face.up.vector is not three numbers"),
        ({"face": {"up": {"axis": "+Y"}}}, "face.up.vector is missing"),
        ({"face": {"residual_mm": True}}, "face.residual_mm is not a number"),
        ({"face": {"residual_mm": float("nan")}}, "face.residual_mm is not a number"),
        ({"views": [{"role": "spare", "yaw": 0, "pitch": 0}]}, "views.role is not one of landmark, fit, heldout"),
        ({"views": [3]}, "views is not a list of views"),
    ],
)
def test_a_wrong_field_is_named(content: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "avatar.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_avatar_record(path, "Make it again.")
    assert str(caught.value) == f"{path}: {said}. Make it again."
