"""What Blender makes of files with the importer's default settings: python blender_import.py OUT.npz FILE...

Runs in an environment of its own with PyPI's `bpy`. For the k-th file OUT holds `vertices_<k>` (V, 3), all meshes as
they stand in the scene, `faces_<k>`, `bones_<k>` by name and where they begin, `heads_<k>`, and names of
`shape_keys_<k>` and `actions_<k>`.
"""

import sys

import bpy
import numpy as np


def main(out: str, files: list[str]) -> None:
    arrays: dict[str, np.ndarray] = {}
    for number, file in enumerate(files):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        kind = file.rsplit(".", 1)[1]
        read = {"glb": bpy.ops.import_scene.gltf, "obj": bpy.ops.wm.obj_import, "ply": bpy.ops.wm.ply_import}[kind]
        read(filepath=file)
        graph = bpy.context.evaluated_depsgraph_get()
        vertices, faces, keys, bones, heads, start = [], [], [], [], [], 0
        for thing in bpy.context.scene.objects:
            if thing.type == "ARMATURE":
                posed = thing.evaluated_get(graph)
                bones += [bone.name for bone in posed.pose.bones]
                heads += [tuple(posed.matrix_world @ bone.head) for bone in posed.pose.bones]
            if thing.type != "MESH" or not thing.visible_get():  # the importer draws bones as hidden balls
                continue
            if thing.data.shape_keys is not None:
                keys += [key.name for key in thing.data.shape_keys.key_blocks]
            shown = thing.evaluated_get(graph)
            mesh = shown.to_mesh()
            mesh.calc_loop_triangles()
            at = np.array([tuple(shown.matrix_world @ v.co) for v in mesh.vertices]).reshape(-1, 3)
            vertices.append(at)
            faces.append(np.array([t.vertices[:] for t in mesh.loop_triangles], dtype=np.int64).reshape(-1, 3) + start)
            start += len(at)
        arrays |= {f"vertices_{number}": np.concatenate(vertices), f"faces_{number}": np.concatenate(faces)}
        arrays |= {f"bones_{number}": np.array(bones), f"heads_{number}": np.array(heads).reshape(-1, 3)}
        arrays |= {
            f"shape_keys_{number}": np.array(keys),
            f"actions_{number}": np.array([a.name for a in bpy.data.actions]),
        }
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
