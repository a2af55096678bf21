"""Cameras as users call them."""

from collections.abc import Mapping

from flame_fitting.errors import InputError


def camera_called(name: str, ids: Mapping[int, str], flag: str, also: str = "") -> int:
    """The camera (number to name in `ids`) that is called `name`, else the one that has this number.

    Raises InputError where there is none; `flag` is what the message calls the option, `also` what else it takes.
    """
    found = [camera for camera, known in ids.items() if known == name]
    if not found and name.isdecimal() and int(name) in ids:
        found = [int(name)]
    if not found:
        known_ids = ", ".join(f"{camera} ({known})" for camera, known in sorted(ids.items()))
        raise InputError(f"{flag} {name}: no such camera. Give {also}one of {known_ids}.")
    return found[0]
