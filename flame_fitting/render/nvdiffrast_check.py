"""Whether the nvdiffrast that is installed is one that can be used, in words."""

import re

MINIMUM = (0, 3, 3)
"""Oldest nvdiffrast that is supported; 0.4.0 is what is tested."""

INSTALL_LINE = (
    "pip install setuptools wheel ninja && "
    "pip install --no-build-isolation git+https://github.com/NVlabs/nvdiffrast.git@v0.4.0"
)
"""From nvdiffrast's own README. The PyPI has no nvdiffrast."""

REPLACE_LINES = f"pip uninstall -y nvdiffrast && {INSTALL_LINE}"


def nvdiffrast_problem(version: str, culls_back_faces: bool) -> str | None:
    """What is wrong with an nvdiffrast of this version, with the lines that mend it; None if nothing is."""
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if found < MINIMUM:
        wanted = ".".join(map(str, MINIMUM))
        return f"nvdiffrast {version} is too old; {wanted} or newer is needed. Run: {REPLACE_LINES}"
    if culls_back_faces:
        return (
            f"this nvdiffrast ({version}) drops back faces by itself: it is the fork that VHAP installs, and pictures "
            f"would be wrong with it. Use an environment of its own for flame-fitting, or run: {REPLACE_LINES}"
        )
    return None
