"""Morph targets by what a user types."""

import pytest

from flame_fitting.avatar.loading import chosen_morphs
from flame_fitting.errors import InputError


def test_morph_targets_are_named_by_last_parts_and_beginnings_of_one_alone(monkeypatch):
    names = ["face.jawOpen", "teeth.jawOpen", "face.jaw", "face.smile", *(f"hand.f{number}" for number in range(20))]
    monkeypatch.setattr("flame_fitting.avatar.loading.morphs_of", lambda path: names)
    named = chosen_morphs("a.glb", ["smile", "teeth", "jaw", "hand.f1"])
    assert named == ["face.smile", "teeth.jawOpen", "face.jaw", "hand.f1"]
    with pytest.raises(InputError, match=r"jawOpen: .* has 2 such morph targets: face\.jawOpen, teeth\.jawOpen\."):
        chosen_morphs("a.glb", ["jawOpen"])
    with pytest.raises(InputError, match=r"hand: .* 20 such .* hand\.f11 and 8 more\."):
        chosen_morphs("a.glb", ["hand"])
    with pytest.raises(InputError, match=r"It has 24: .* and 12 more\."):
        chosen_morphs("a.glb", ["nosuch"])
