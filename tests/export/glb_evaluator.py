"""What a glTF file says of its one skinned mesh, evaluated anew: accessors by pygltflib's dataclasses, formulas by the
specification (sections 3.6 and 3.7)."""

from pathlib import Path
from typing import Any

import numpy as np
from pygltflib import GLTF2
from scipy.spatial.transform import Rotation, Slerp

_KIND = {5121: "u1", 5123: "u2", 5125: "u4", 5126: "f4"}
_WIDTH = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class EvaluatedGlb:
    """A file, with its nodes and weights as it stands; these may be changed."""

    def __init__(self, path: Path) -> None:
        self.gltf = GLTF2.load(str(path))
        self._binary = self.gltf.binary_blob()
        self.node = {node.name: k for k, node in enumerate(self.gltf.nodes) if node.skin is None}
        self.body = next(k for k, node in enumerate(self.gltf.nodes) if node.skin is not None)
        self.mesh = self.gltf.meshes[self.gltf.nodes[self.body].mesh]
        self.primitive = self.mesh.primitives[0]
        self.targets: list[str] = self.mesh.extras["targetNames"]
        self.weights = np.array(self.mesh.weights)
        self.rotation = {k: np.array(node.rotation or (0, 0, 0, 1)) for k, node in enumerate(self.gltf.nodes)}
        self.translation = {k: np.array(node.translation or (0, 0, 0)) for k, node in enumerate(self.gltf.nodes)}

    def accessor(self, number: int) -> np.ndarray:
        entry = self.gltf.accessors[number]
        width, kind = _WIDTH[entry.type], np.dtype("<" + _KIND[entry.componentType])
        out = np.zeros((entry.count, width), kind)
        if entry.bufferView is not None:
            view = self.gltf.bufferViews[entry.bufferView]
            start, stride = (view.byteOffset or 0) + (entry.byteOffset or 0), view.byteStride or kind.itemsize * width
            for k in range(entry.count):
                out[k] = np.frombuffer(self._binary, kind, width, start + k * stride)
        if entry.sparse is not None:
            index, values = entry.sparse.indices, entry.sparse.values
            at = self._packed(index, np.dtype("<" + _KIND[index.componentType]), entry.sparse.count)
            out[at] = self._packed(values, kind, entry.sparse.count * width).reshape(-1, width)
        return out

    def attribute(self, name: str) -> np.ndarray:
        return self.accessor(getattr(self.primitive.attributes, name))

    def target(self, name: str) -> np.ndarray:
        """Displacements of a morph target."""
        return self.accessor(self.primitive.targets[self.targets.index(name)]["POSITION"])

    def to_rest(self) -> None:
        """Weights of zero, joints as they are bound."""
        self.weights[:] = 0
        for name, k in self.node.items():
            if name != "placement":
                self.rotation[k] = np.array([0.0, 0, 0, 1])
        bind = np.linalg.inv(self._inverse_bind())
        joints = self.gltf.skins[0].joints
        for place, k in zip(bind, joints, strict=True):
            above = next((j for j in joints if k in (self.gltf.nodes[j].children or [])), None)
            parent = np.eye(4) if above is None else bind[joints.index(above)]
            self.translation[k] = (np.linalg.inv(parent) @ place)[:3, 3]

    def turn(self, name: str, axis_angle: Any) -> None:
        self.rotation[self.node[name]] = Rotation.from_rotvec(axis_angle).as_quat()

    def to_time(self, seconds: float, name: str) -> None:
        """Nodes and weights by an animation."""
        animation = next(each for each in self.gltf.animations if each.name == name)
        for channel in animation.channels:
            sampler = animation.samplers[channel.sampler]
            times = self.accessor(sampler.input)[:, 0].astype(float)
            values = self.accessor(sampler.output).astype(float).reshape(len(times), -1)
            k, path = channel.target.node, channel.target.path
            if path == "rotation":
                self.rotation[k] = Slerp(times, Rotation.from_quat(values))(
                    np.clip(seconds, times[0], times[-1])
                ).as_quat()
                continue
            found = np.array([np.interp(seconds, times, column) for column in values.T])
            if path == "weights":
                self.weights = found
            else:
                self.translation[k] = found

    def vertices(self) -> np.ndarray:
        """(N, 3) in the scene."""
        points = self.attribute("POSITION").astype(float)
        for weight, name in zip(self.weights, self.targets, strict=True):
            if weight:
                points = points + weight * self.target(name)
        world: dict[int, np.ndarray] = {}
        pending = [(k, np.eye(4)) for k in self.gltf.scenes[0].nodes]
        while pending:
            k, parent = pending.pop()
            local = np.eye(4)
            scale = np.array(self.gltf.nodes[k].scale or (1, 1, 1))
            local[:3, :3] = Rotation.from_quat(self.rotation[k]).as_matrix() * scale
            local[:3, 3] = self.translation[k]
            world[k] = parent @ local
            pending += [(child, world[k]) for child in self.gltf.nodes[k].children or []]
        matrices = np.stack([world[k] for k in self.gltf.skins[0].joints]) @ self._inverse_bind()
        out = np.zeros_like(points)
        for number in range(2):
            if getattr(self.primitive.attributes, f"JOINTS_{number}", None) is None:
                break
            joints, shares = self.attribute(f"JOINTS_{number}"), self.attribute(f"WEIGHTS_{number}")
            for k in range(4):
                chosen = matrices[joints[:, k]]
                carried = np.einsum("vab,vb->va", chosen[:, :3, :3], points) + chosen[:, :3, 3]
                out += shares[:, k, None] * carried
        return out

    def _packed(self, part: Any, kind: np.dtype, count: int) -> np.ndarray:
        view = self.gltf.bufferViews[part.bufferView]
        return np.frombuffer(self._binary, kind, count, (view.byteOffset or 0) + (part.byteOffset or 0))

    def _inverse_bind(self) -> np.ndarray:
        stored = self.accessor(self.gltf.skins[0].inverseBindMatrices)
        return stored.reshape(-1, 4, 4).transpose(0, 2, 1).astype(float)
