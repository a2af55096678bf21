"""What identifies what is read of a capture, for manifests."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flame_fitting.capture.capture import Capture
from flame_fitting.capture.opening import kind_of, open_capture
from flame_fitting.capture.read_options import ReadOptions
from flame_fitting.files import sha256_of_file
from flame_fitting.manifest import hash_capture

_MOST_BYTES = 2 * 10**9
"""Of pictures beyond this, sizes and times count, not contents: a recording of hours would be read twice a stage."""


def capture_hash(path: Path, options: ReadOptions) -> str:
    """SHA-256, hex: of a capture's whole folder but its landmarks, of other kinds of folders the files that are read.

    Those may hold much else, a recording of hours of which one moment is read.
    """
    if kind_of(path) == "capture":
        return hash_capture(path)
    return _hash_of_files(open_capture(path, options))


def _hash_of_files(capture: Capture) -> str:
    names = {view.file_path for view in capture.views} | {v.mask_path for v in capture.views if v.mask_path}
    backdrops = {v.making.backdrop.mask_path for v in capture.views if v.making and v.making.backdrop}
    files = sorted(names | backdrops) + sorted(os.path.relpath(path, capture.root) for path in capture.sources)
    found = [os.stat(capture.root / name) for name in files]
    digest = hashlib.sha256()
    if sum(one.st_size for one in found) > _MOST_BYTES:
        for name, one in zip(files, found, strict=True):
            digest.update(f"{name}\0{one.st_size}\0{one.st_mtime_ns}\n".encode())
        return digest.hexdigest()
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        hashes = list(pool.map(lambda name: sha256_of_file(capture.root / name), files))
    for name, value in zip(files, hashes, strict=True):
        digest.update(f"{name}\0{value}\n".encode())
    return digest.hexdigest()
