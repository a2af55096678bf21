"""Files that an avatar file refers to: read only from inside the avatar's folder."""

import base64
import binascii
import io
import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from jaxtyping import UInt8

from flame_fitting.errors import InputError

MAX_TEXTURE_SIDE = 8192
NOT_FOUND = "not in the avatar's folder"


class PictureError(ValueError):
    """A picture cannot be had; the text says why, in a few words."""


@dataclass
class LocalFiles:
    """Reads what `main` refers to. Nothing outside the folder of `main` is opened, whatever the file says."""

    main: Path
    used: list[Path] = field(default_factory=list)
    """Files read so far, each once, in the order of their first use."""
    without_color: dict[str, str] = field(default_factory=dict)
    """Pictures and material files that could not be used, by name, with the reason."""

    def find(self, name: str) -> Path | None:
        """The file inside the folder of `main` that `name` means, resolved; None where there is none.

        Exporters write absolute paths, paths of other machines (`C:\\Users\\me\\Skin.JPG`), and another case than the
        file has. So the path is tried as it stands, then without its first folders one by one, down to the bare name,
        each time exactly and with case ignored. Links that lead out of the folder are not followed.
        """
        parts = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".")]
        folder = self.main.parent.resolve()
        for start in range(len(parts)):
            if ".." not in parts[start:]:
                found = _inside(folder, parts[start:])
                if found is not None:
                    return found
        return None

    def read_uri(self, uri: str, what: str) -> bytes:
        """Bytes of a data: URI or of a file given by a percent-encoded path (glTF), without which nothing goes."""
        if uri.startswith("data:"):
            try:
                return bytes_of_data_uri(uri)
            except ValueError as error:
                raise InputError(f"{self.main}: {what} is a damaged data URI ({error}). Export it again.") from None
        name = unquote(uri)
        path = self.find(name)
        advice = "Put it back beside the avatar, or export again with everything in one file (.glb)."
        if path is None:
            raise InputError(f"{self.main}: {what} '{name}' is {NOT_FOUND}; nothing else is read. {advice}")
        try:
            return self._read(path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"{self.main}: {what} '{name}' cannot be read ({reason}). {advice}") from None

    def material(self, name: str) -> bytes | None:
        """Bytes of a file of materials; None where it cannot be had, which `without_color` then says."""
        try:
            return self._file(name)[1]
        except PictureError as error:
            self.without_color[name] = str(error)
            return None

    def picture(
        self, name: str, note: Callable[[str], None], content: bytes | None = None
    ) -> UInt8[np.ndarray, "h w 4"] | None:
        """RGBA of the picture file `name`, or of the encoded `content` that goes by that name.

        None where it cannot be had, which `without_color` then says.
        """
        try:
            if content is None:
                found, content = self._file(name)
                if found.name != re.split(r"[\\/]", name)[-1]:
                    note(f"texture '{name}' read from {found.name}")
            return decode_texture(content, f"texture '{name}'", note)
        except PictureError as error:
            self.without_color[name] = str(error)
            return None

    def picture_bytes(self, name: str) -> bytes:
        """The picture file `name` as it is. Raises PictureError."""
        return self._file(name)[1]

    def warnings(self) -> list[str]:
        """One warning that names every picture and material file without which the avatar has to do, or nothing."""
        if not self.without_color:
            return []
        named = ", ".join(f"{name} ({reason})" for name, reason in self.without_color.items())
        return [
            f"{self.main}: colours are missing, because these cannot be used: {named}. Mend them or "
            "put them beside the avatar, pictures as PNG or JPEG."
        ]

    def _file(self, name: str) -> tuple[Path, bytes]:
        """Where the file that `name` means lies, and what is in it. Raises PictureError."""
        path = self.find(name)
        if path is None:
            raise PictureError(NOT_FOUND)
        try:
            return path, self._read(path)
        except OSError as error:
            raise PictureError(error.strerror or str(error)) from None

    def _read(self, path: Path) -> bytes:
        content = path.read_bytes()
        if path not in self.used:
            self.used.append(path)
        return content


def _inside(folder: Path, parts: list[str]) -> Path | None:
    """The file of these path components under `folder`, exactly or with case ignored, if it really lies in there."""
    try:
        place: Path | None = folder.joinpath(*parts)
        if place is None or not place.is_file():
            place = folder
            for part in parts:
                place = None if place is None else _entry(place, part)
        if place is None or not place.is_file():
            return None
        real = place.resolve()
    except (OSError, ValueError):  # a name that is too long, or no name at all for the file system
        return None
    return real if real.is_relative_to(folder) else None


def _entry(folder: Path, name: str) -> Path | None:
    """The entry of a folder with this name, exactly where there is one, else the first with case ignored."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    wanted = folded(name)
    alike = [found for found in names if folded(found) == wanted]
    return folder / (name if name in alike else alike[0]) if alike else None


def folded(name: str) -> str:
    """A file name as names are compared where case and the form of accents do not count."""
    return unicodedata.normalize("NFC", name).casefold()


def bytes_of_data_uri(uri: str) -> bytes:
    """Payload of a data: URI. Raises ValueError where it is damaged."""
    header, _, payload = uri.partition(",")
    try:
        return base64.b64decode(payload, validate=False) if ";base64" in header else unquote(payload).encode()
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def decode_texture(content: bytes, what: str, note: Callable[[str], None]) -> UInt8[np.ndarray, "h w 4"]:
    """RGBA picture, row 0 at the top. Raises PictureError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
            image: Image.Image = opened
            if image.mode.startswith("I;16"):
                gray = (np.asarray(image).astype(np.float64) / 257.0).round().astype(np.uint8)
                image = Image.fromarray(gray)
            rgba = image.convert("RGBA")
    except UnidentifiedImageError:
        kind = "a KTX2 picture" if content[:12].startswith(b"\xabKTX 20") else "not a picture that Pillow can read"
        raise PictureError(kind) from None
    except Image.DecompressionBombError:
        raise PictureError(f"too large: at most {MAX_TEXTURE_SIDE} pixels a side") from None
    except Exception as error:  # decoders fail in many ways on damaged pictures
        raise PictureError(f"damaged: {str(error).splitlines()[0][:100] if str(error) else 'not readable'}") from None
    if max(rgba.size) > MAX_TEXTURE_SIDE:
        factor = -(-max(rgba.size) // MAX_TEXTURE_SIDE)
        note(f"{what} of {rgba.size[0]}x{rgba.size[1]} pixels reduced {factor} times")
        rgba = rgba.reduce(factor)
    return np.asarray(rgba)
