"""Files that an avatar file refers to: read only from inside the avatar's folder."""

import base64
import binascii
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from jaxtyping import UInt8

from flame_fitting.errors import InputError

MAX_TEXTURE_SIDE = 8192


@dataclass
class LocalFiles:
    """Reads what `main` refers to. Nothing outside the folder of `main` is opened, whatever the file says."""

    main: Path
    used: list[Path] = field(default_factory=list)
    """Files read so far, each once, in the order of their first use."""

    def read_uri(self, uri: str, what: str) -> bytes:
        """Bytes of a data: URI or of a file given by a relative, percent-encoded path (glTF)."""
        if uri.startswith("data:"):
            header, _, payload = uri.partition(",")
            try:
                return base64.b64decode(payload, validate=False) if ";base64" in header else unquote(payload).encode()
            except (binascii.Error, ValueError) as error:
                raise InputError(f"{self.main}: {what} is a damaged data URI ({error}). Export it again.") from None
        return self.read(unquote(uri), what)

    def read(self, name: str, what: str) -> bytes:
        """Bytes of a file given by its path relative to the folder of `main`."""
        path = self.locate(name, what)
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(
                f"{self.main}: {what} '{name}' cannot be read ({reason}). "
                "Put it back beside the avatar, or export again with everything in one file (.glb)."
            ) from None
        if path not in self.used:
            self.used.append(path)
        return content

    def locate(self, name: str, what: str) -> Path:
        """The path of a file inside the folder of `main`; refuses every other one."""
        advice = "Copy it into the avatar's folder and refer to it by its name."
        if re.match(r"^[A-Za-z][A-Za-z0-9+.-]+:", name):
            raise InputError(f"{self.main}: {what} '{name}' is an address; nothing is downloaded. {advice}")
        local = name.replace("\\", "/")
        if local.startswith("/") or re.match(r"^[A-Za-z]:", local) or "\0" in local:
            raise InputError(f"{self.main}: {what} '{name}' is an absolute path, which is not followed. {advice}")
        folder = self.main.parent.resolve()
        path = (folder / local).resolve()
        if not path.is_relative_to(folder):
            raise InputError(f"{self.main}: {what} '{name}' lies outside the avatar's folder. {advice}")
        return path

    def find_by_name(self, name: str) -> str | None:
        """The bare file name of a foreign path, if a file of that name lies beside `main`."""
        bare = name.replace("\\", "/").rsplit("/", 1)[-1]
        return bare if bare and (self.main.parent / bare).is_file() else None


def decode_texture(content: bytes, main: Path, what: str, note: Callable[[str], None]) -> UInt8[np.ndarray, "h w 4"]:
    """RGBA picture, row 0 at the top."""
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
        raise InputError(f"{main}: {what} is {kind}. Save it as PNG or JPEG.") from None
    except Image.DecompressionBombError:
        raise InputError(
            f"{main}: {what} is too large. Save it with at most {MAX_TEXTURE_SIDE} pixels a side."
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"{main}: {what} cannot be read ({error}). Save it again as PNG or JPEG.") from None
    if max(rgba.size) > MAX_TEXTURE_SIDE:
        factor = -(-max(rgba.size) // MAX_TEXTURE_SIDE)
        note(f"{what} of {rgba.size[0]}x{rgba.size[1]} pixels reduced {factor} times")
        rgba = rgba.reduce(factor)
    return np.asarray(rgba)
