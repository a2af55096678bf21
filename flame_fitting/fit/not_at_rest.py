"""What of faces is not at rest (`solvers.moments.in_words`), in one line for the user."""

from collections.abc import Sequence

_MOMENTS = 8


def in_a_line(said: Sequence[str], several: bool) -> str:
    """Of `several` moments the first ones, apart from what each of them lists."""
    if not several:
        return ", ".join(said)
    more = len(said) - _MOMENTS
    return "; ".join([*said[:_MOMENTS], *([f"and {more} more"] if more > 0 else [])])
