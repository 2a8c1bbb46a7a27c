"""Files as people send them, and as nobody should: made here, nothing of them is anybody's."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pillow_heif
from PIL import Image

GPS = {0: b"\x02\x03\x00\x00", 1: "N", 2: (41.0, 52.0, 55.0), 3: "W", 4: (87.0, 37.0, 40.0)}
SECRET = b"Elm Street 12"


def a_picture(
    form: str = "JPEG", size: tuple[int, int] = (640, 480), *, mode: str = "RGB", **save: Any
) -> bytes:
    """A picture with an orientation, a place and a comment, where its format has room for them."""
    picture = Image.new(mode, size, "white" if mode != "RGBA" else (200, 10, 10, 128))
    for x in range(min(size[0], 40)):
        picture.putpixel((x, 0), 0 if mode == "L" else (255, 0, 0, 255)[: len(mode)])
    held = io.BytesIO()
    if form == "HEIF":
        pillow_heif.from_pillow(picture).save(held, exif=located().tobytes())
        return held.getvalue()
    if form in {"JPEG", "PNG", "WEBP"}:
        save = {"exif": located()} | save
    picture.save(held, form, **save)
    return held.getvalue()


def located() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()  # ImageDescription
    exif[0x0112] = 6  # Orientation: to be turned by 90 degrees
    exif.get_ifd(0x8825).update(GPS)
    return exif


def a_pdf(body: bytes = b"") -> bytes:
    return b"%PDF-1.4\n1 0 obj\n<< >>\nendobj\n" + body + b"\ntrailer\n<< >>\n%%EOF\n"


def a_png_bomb(side: int = 30_000) -> bytes:
    """A PNG of some kilobytes whose header says that it has a great many pixels."""
    row = zlib.compress(b"\x00" * (side // 8 + 1) * 64, 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        + _chunk(b"IDAT", row)
        + _chunk(b"IEND", b"")
    )


def a_text_bomb() -> bytes:
    """A small PNG with a comment that unpacks to hundreds of megabytes."""
    comment = b"Comment\x00\x00" + zlib.compress(b"\x00" * 300_000_000, 9)
    plain = a_picture("PNG", (8, 8), exif=None)
    head = 8 + 25
    return plain[:head] + _chunk(b"zTXt", comment) + plain[head:]


def _chunk(name: bytes, data: bytes) -> bytes:
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)
