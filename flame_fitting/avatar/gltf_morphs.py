"""Morph targets of a glTF document by their names: those of one name, in whatever mesh, move together.

Names stand in `extras.targetNames` of a mesh or of a primitive, where exporters agreed to put them; without, targets
are numbered.
"""

import copy
from typing import Any


def morph_names(document: dict[str, Any]) -> list[str]:
    """Of all meshes, in their order, each once."""
    return list(dict.fromkeys(name for mesh in document.get("meshes", []) for name in _names_of(mesh)))


def with_morph(document: dict[str, Any], morph: str) -> dict[str, Any]:
    """The document with one morph target at weight 1, all others as they are in it."""
    out = document | {"meshes": copy.deepcopy(document.get("meshes", [])), "nodes": copy.deepcopy(document["nodes"])}
    for mesh in out["meshes"]:
        mesh["weights"] = _weights(mesh.get("weights", []), _names_of(mesh), morph)
    for node in out["nodes"]:
        if "weights" in node and "mesh" in node:
            node["weights"] = _weights(node["weights"], _names_of(out["meshes"][node["mesh"]]), morph)
    return out


def _weights(given: list[float], names: list[str], morph: str) -> list[float]:
    padded = [*given, *[0.0] * (len(names) - len(given))]
    return [1.0 if name == morph else weight for name, weight in zip(names, padded, strict=False)]


def _names_of(mesh: dict[str, Any]) -> list[str]:
    """One for each target of a mesh."""
    primitives = mesh.get("primitives", [])
    count = max((len(primitive.get("targets", [])) for primitive in primitives), default=0)
    for holder in (mesh, *primitives):
        extras = holder.get("extras")
        names = extras.get("targetNames") if isinstance(extras, dict) else None
        if isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names):
            return [name or f"morph_{number}" for number, name in enumerate(names)]
    return [f"morph_{number}" for number in range(count)]
