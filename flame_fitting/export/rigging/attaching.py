"""Puts a rig into an avatar's glTF document; materials, textures and all that is not about moving stay as they are."""

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy import ndarray
from pygltflib import GLTF2, Attributes, Mesh, Node, Primitive, Scene

from flame_fitting.avatar.gltf_morphs import names_of
from flame_fitting.export.gltf_document import GltfDocument
from flame_fitting.export.gltf_rigs import Joint, add_skin, bind_skin, influences, morph_target, name_targets
from flame_fitting.export.head_rig import CORRECTIVE, CORRECTIVE_ANGLE, JOINTS
from flame_fitting.export.rigging.avatar_file import AvatarFile, Slot
from flame_fitting.export.rigging.old_rigs import drop_channels, drop_rig
from flame_fitting.export.rigging.rig import LEAST, Rig

_DRIVEN = {"joint": "jaw", "axis": [1, 0, 0], "weight": f"sin(angle beyond the bind pose) / sin({CORRECTIVE_ANGLE})"}


def attach(file: AvatarFile, rig: Rig, skin: bool) -> list[str]:
    """Adds morph targets and, where `skin`, joints and weights, in place of a rig that there is. Gives warnings."""
    gltf = file.document.gltf
    _own_meshes(gltf, {found.node for found in file.primitives})
    slots, start = dict[int, list[Slot]](), 0
    for found in file.primitives:
        rows = slice(start, start + len(found.part.vertices))
        slots.setdefault(found.node, []).append(Slot(found, rows, found.world_from_mesh))
        start = rows.stop
    lost = 0
    if skin:
        lost += drop_rig(file, [slot for node in file.rigged_nodes for slot in slots[node]])
        slots = _add_skins(file.document, rig, slots)
        lost += drop_channels(gltf, slots, ("translation", "rotation", "scale"))
    changed = _add_morphs(file.document, rig, slots)
    lost += drop_channels(gltf, changed, ("weights",))
    said = f"{file.path}: {lost} channels of its animations are left out, as they moved what has another rig now."
    return [said] if lost else []


def _own_meshes(gltf: GLTF2, nodes: Iterable[int]) -> None:
    """A mesh of its own for every node, as weights and displacements differ."""
    users = [node.mesh for node in gltf.nodes if node.mesh is not None]
    for number in nodes:
        node = gltf.nodes[number]
        if users.count(node.mesh) > 1:
            users.remove(node.mesh)
            gltf.meshes.append(copy.deepcopy(gltf.meshes[node.mesh]))
            node.mesh = len(gltf.meshes) - 1


def _mesh(gltf: GLTF2, node: int) -> Mesh:
    return gltf.meshes[gltf.nodes[node].mesh]


def _scene(gltf: GLTF2) -> Scene:
    if not gltf.scenes:
        below = {child for node in gltf.nodes for child in node.children or []}
        gltf.scenes, gltf.scene = [Scene(nodes=[k for k in range(len(gltf.nodes)) if k not in below])], 0
    return gltf.scenes[gltf.scene or 0]


def _add_skins(document: GltfDocument, rig: Rig, slots: dict[int, list[Slot]]) -> dict[int, list[Slot]]:
    """One skin for each place that meshes stand in, all of the same joints. Gives the slots by their nodes then."""
    gltf, scene = document.gltf, _scene(document.gltf)
    local = [
        joint if parent < 0 else np.linalg.inv(rig.joints[parent]) @ joint
        for joint, parent in zip(rig.joints, rig.parents, strict=True)
    ]
    skins, joints, out = list[tuple[ndarray, int]](), list[int](), dict[int, list[Slot]]()
    for node, own in slots.items():
        place = own[0].place[0]
        skin = next((number for other, number in skins if np.array_equal(other, place)), None)
        if skin is None:
            bind = np.linalg.inv(place) @ rig.joints
            if joints:
                skin = bind_skin(document, joints, bind, "rig")
            else:
                rows = zip(JOINTS, rig.parents, bind, local, strict=True)
                skin, joints = add_skin(document, [Joint(*row) for row in rows], "rig")
                scene.nodes += [joint for joint, parent in zip(joints, rig.parents, strict=True) if parent < 0]
            skins.append((place, skin))
        mesh, of_number = _mesh(gltf, node), {slot.found.number: slot for slot in own}
        for number, primitive in enumerate(mesh.primitives):
            if number in of_number:
                _weigh(document, primitive, rig.weights[of_number[number].rows])
            else:  # points and lines follow the root
                count = gltf.accessors[primitive.attributes.POSITION].count
                _weigh(document, primitive, np.eye(len(JOINTS))[np.zeros(count, dtype=int)])
        there = _to_root(document, scene, node)
        gltf.nodes[there].skin = skin
        out[there] = own
    return out


def _weigh(document: GltfDocument, primitive: Primitive, weights: ndarray) -> None:
    attributes = primitive.attributes
    for name in [name for name in vars(attributes) if name.startswith(("JOINTS_", "WEIGHTS_"))]:
        setattr(attributes, name, None)
    ((joints, shares),) = influences(weights)
    attributes.JOINTS_0, attributes.WEIGHTS_0 = document.accessor(joints), document.accessor(shares)


def _to_root(document: GltfDocument, scene: Scene, number: int) -> int:
    """The node with the mesh, in the scene itself, as no node places what a skin moves."""
    gltf, node = document.gltf, document.gltf.nodes[number]
    if node.children or node.camera is not None or node.extensions:
        there = document.node(Node(name=node.name, mesh=node.mesh))
        node.mesh = None
    else:
        there = number
        for other in gltf.nodes:
            other.children = [child for child in other.children or [] if child != number]
        node.matrix = node.translation = node.rotation = node.scale = None
    if there not in scene.nodes:
        scene.nodes.append(there)
    return there


def _add_morphs(document: GltfDocument, rig: Rig, slots: dict[int, list[Slot]]) -> list[int]:
    """Every mesh gets the targets that move it and that it does not have. Gives the nodes that have got some."""
    gltf = document.gltf
    there = {node: names_of(_as_read(_mesh(gltf, node))) for node in slots}
    added: dict[int, list[str]] = {node: [] for node in slots}
    for name in rig.displacements:
        moved = rig.moved(name)
        turned = rig.turned(name)
        for node, own in slots.items():
            if name in there[node] or not any(moved[slot.rows].any() for slot in own):
                continue
            added[node].append(name)
            of_number = {slot.found.number: slot for slot in own}
            for number, primitive in enumerate(_mesh(gltf, node).primitives):
                if number in of_number:
                    target = _target(document, of_number[number], primitive, moved, turned, rig)
                else:
                    count = gltf.accessors[primitive.attributes.POSITION].count
                    target = morph_target(document, np.zeros((count, 3)))
                primitive.targets = [*(primitive.targets or []), target]
    for node, new in added.items():
        if new:
            mesh, before = _mesh(gltf, node), len(there[node])
            given = [*(mesh.weights or []), *[0.0] * before][:before]
            name_targets(mesh, [*there[node], *new], [*given, *[0.0] * len(new)])
            if CORRECTIVE in new:
                mesh.extras["drives"] = {CORRECTIVE: _DRIVEN}
    return [node for node, new in added.items() if new]


def _target(
    document: GltfDocument, slot: Slot, primitive: Primitive, moved: ndarray, turned: ndarray, rig: Rig
) -> Attributes:
    inverse = np.linalg.inv(slot.place[:, :3, :3])
    size = np.cbrt(np.abs(np.linalg.det(inverse)))[:, None]
    local = (inverse @ moved[slot.rows][..., None])[..., 0]
    normals = None
    if primitive.attributes.NORMAL is not None:
        normals = (inverse @ turned[slot.rows][..., None])[..., 0] / size
        if slot.found.part.normals is not None:
            # surfaces that are wound inside out
            normals[(slot.found.part.normals * rig.normals[slot.rows]).sum(axis=1) < 0] *= -1
    return morph_target(document, local, normals, LEAST / rig.metres_per_unit * float(size.mean()))


def _as_read(mesh: Mesh) -> dict[str, Any]:
    """What `names_of` asks of a mesh."""
    primitives = [{"targets": each.targets or [], "extras": each.extras} for each in mesh.primitives]
    return {"primitives": primitives, "extras": mesh.extras}
