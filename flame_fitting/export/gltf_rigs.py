"""Skins, morph targets and animations of glTF documents."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from pygltflib import (
    Animation,
    AnimationChannel,
    AnimationChannelTarget,
    AnimationSampler,
    Attributes,
    Mesh,
    Node,
    Skin,
)

from flame_fitting.export.gltf_document import GltfDocument, placing

NORMAL_TOLERANCE = 5e-4
"""Change of a unit normal that is left out of a morph target: 0.03 degrees."""
_SET = 4
"""Joints in a set of a vertex's attributes."""


def influences(weights: Float[ndarray, "V J"], sets: int = 1) -> list[tuple[UInt8[ndarray, "V 4"], ndarray]]:
    """The strongest joints of each vertex and their weights, float32 of sum 1: JOINTS_0 and WEIGHTS_0, then those of
    further sets. A joint without weight is 0."""
    count = sets * _SET
    padded = np.pad(weights, ((0, 0), (0, max(0, count - weights.shape[1]))))
    joints = np.argsort(-padded, axis=1, kind="stable")[:, :count]
    chosen = np.take_along_axis(padded, joints, axis=1).clip(0)
    chosen = (chosen / chosen.sum(1, keepdims=True)).astype(np.float32)
    joints = np.where(chosen > 0, joints, 0).astype(np.uint8)
    parts = [slice(k, k + _SET) for k in range(0, count, _SET)]
    return [(np.ascontiguousarray(joints[:, p]), np.ascontiguousarray(chosen[:, p])) for p in parts]


class Joint(NamedTuple):
    """A joint of a skin."""

    name: str
    parent: int
    """Its number in the list, -1 of a root; parents come before their children."""
    bind: Float[ndarray, "4 4"]
    """Where it stands in the mesh's coordinates as this is bound."""
    local: Float[ndarray, "4 4"]
    """Its node in its parent's (a root's in that of `under`), as the file stands."""


def add_skin(document: GltfDocument, joints: Sequence[Joint], name: str, under: int | None = None) -> tuple[int, list]:
    """Numbers of a skin and of its joints' nodes, which hang below the node `under`; None: the caller puts the roots
    into a scene."""
    numbers = [document.node(Node(name=joint.name, **placing(joint.local))) for joint in joints]
    for joint, number in zip(joints, numbers, strict=True):
        above = numbers[joint.parent] if joint.parent >= 0 else under
        if above is not None:
            document.gltf.nodes[above].children.append(number)
    inverse = np.linalg.inv(np.stack([joint.bind for joint in joints]))
    inverse[:, 3] = (0, 0, 0, 1)  # what a validator asks for, exactly
    skin = Skin(name=name, joints=numbers, inverseBindMatrices=document.accessor(inverse.astype(np.float32), kind=None))
    document.gltf.skins.append(skin)
    return len(document.gltf.skins) - 1, numbers


def morph_target(
    document: GltfDocument,
    positions: Float[ndarray, "V 3"],
    normals: Float[ndarray, "V 3"] | None = None,
    tolerance: float = 0.0,
) -> Attributes:
    """A primitive's target of displacements, and of changes of its normals; `tolerance`: those that do not count."""
    attributes = {"POSITION": document.sparse_accessor(positions, tolerance)}
    if normals is not None:
        attributes["NORMAL"] = document.sparse_accessor(normals, NORMAL_TOLERANCE)
    return Attributes(**attributes)


def name_targets(mesh: Mesh, names: Sequence[str], weights: Sequence[float] | None = None) -> None:
    """Names the targets that all its primitives have, as Blender and three.js read them, and their default weights."""
    mesh.extras = {**(mesh.extras or {}), "targetNames": list(names)}
    mesh.weights = [float(w) for w in weights] if weights is not None else [0.0] * len(names)


class Track(NamedTuple):
    """What of a node changes over time."""

    node: int
    path: Literal["translation", "rotation", "scale", "weights"]
    values: Float[ndarray, "T C"]
    """Metres, quaternions x y z w, factors, or a weight for each target."""


def add_animation(
    document: GltfDocument, name: str, seconds: Float[ndarray, " T"], tracks: Sequence[Track], straight: bool = True
) -> None:
    """An animation: `straight` from one time to the next, or standing still until the next."""
    times = document.accessor(np.asarray(seconds, dtype=np.float32), bounds=True, kind=None)
    animation, kind = Animation(name=name), "LINEAR" if straight else "STEP"
    for track in tracks:
        values = np.asarray(track.values, dtype=np.float32)
        # weights are one number after the other
        output = document.accessor(values.reshape(-1) if track.path == "weights" else values, kind=None)
        animation.samplers.append(AnimationSampler(input=times, output=output, interpolation=kind))
        target = AnimationChannelTarget(node=track.node, path=track.path)
        animation.channels.append(AnimationChannel(sampler=len(animation.samplers) - 1, target=target))
    document.gltf.animations.append(animation)
