"""Takes the rig that an avatar comes with out of its document."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy import ndarray
from pygltflib import GLTF2

from flame_fitting.export.head_rig import JOINTS
from flame_fitting.export.rigging.avatar_file import AvatarFile, Slot

_OF_PERSONS = ("VRM", "VRMC_")
"""How the names of extensions begin that name the joints of a person."""


def drop_rig(file: AvatarFile, slots: Sequence[Slot]) -> int:
    """Meshes stay where their skins hold them; skins go, and animations of their joints: the number of channels.

    Joints stay as plain nodes, as other things may hang on them; those of our names are renamed.
    """
    gltf = file.document.gltf
    for slot in slots:
        _bake(file, slot)
    old = {joint for skin in gltf.skins for joint in skin.joints}
    for node in gltf.nodes:
        node.skin = None
    gltf.skins = []
    for joint in old:
        if gltf.nodes[joint].name in JOINTS:
            gltf.nodes[joint].name = f"{gltf.nodes[joint].name}_before"
    for name in [name for name in gltf.extensions if name.startswith(_OF_PERSONS)] if old else []:
        del gltf.extensions[name]
        for listed in (gltf.extensionsUsed, gltf.extensionsRequired):
            if name in listed:
                listed.remove(name)
    return drop_channels(gltf, old, ("translation", "rotation", "scale"))


def drop_channels(gltf: GLTF2, nodes: Iterable[int], paths: Sequence[str]) -> int:
    """Takes out channels of animations, and animations that have none left; how many channels."""
    nodes, lost = set(nodes), 0
    for animation in gltf.animations:
        kept = [c for c in animation.channels if not (c.target.node in nodes and c.target.path in paths)]
        lost += len(animation.channels) - len(kept)
        used = sorted({channel.sampler for channel in kept})
        for channel in kept:
            channel.sampler = used.index(channel.sampler)
        animation.samplers = [animation.samplers[k] for k in used]
        animation.channels = kept
    gltf.animations = [animation for animation in gltf.animations if animation.channels]
    return lost


def _bake(file: AvatarFile, slot: Slot) -> None:
    """Positions and what goes with them in the document's world."""
    gltf, document = file.document.gltf, file.document
    primitive = gltf.meshes[gltf.nodes[slot.found.node].mesh].primitives[slot.found.number]
    attributes, linear = primitive.attributes, slot.place[:, :3, :3]

    def turned(number: int) -> ndarray:
        return np.asarray((linear @ file.numbers.accessor(number)[:, :3, None])[..., 0])

    places = turned(attributes.POSITION) + slot.place[:, :3, 3]
    attributes.POSITION = document.accessor(places.astype(np.float32), bounds=True)
    if attributes.NORMAL is not None and slot.found.part.normals is not None:
        attributes.NORMAL = document.accessor(slot.found.part.normals.astype(np.float32))
    if attributes.TANGENT is not None:
        sign = file.numbers.accessor(attributes.TANGENT)[:, 3:]
        direction = turned(attributes.TANGENT)
        direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-12)
        attributes.TANGENT = document.accessor(np.concatenate([direction, sign], axis=1).astype(np.float32))
    for target in primitive.targets or []:
        for name, number in list(vars(target).items()):
            if number is not None and name in ("NORMAL", "TANGENT"):
                setattr(target, name, None)
            elif number is not None and name == "POSITION":
                target.POSITION = document.sparse_accessor(turned(number))
    slot.place = np.eye(4)[None]
