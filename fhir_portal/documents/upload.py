"""What people send: told by its content, stripped, bounded, and refused if it is something else.

A picture is read and written anew, so that nothing of the file that came is kept but its pixels:
no place and time, no colour profile, nothing behind its end. Everything else is taken only where it
has nothing that runs in a browser (DESIGN §3.11 says how it is served all the same).

Nothing here awaits: it takes some tenths of a second, so that callers give it to a thread.
"""

from __future__ import annotations

import io
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import pillow_heif
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

FILE_BYTES: Final = 5 * 1024 * 1024
"""Of one file, as it comes."""
KEPT_BYTES: Final = 8 * 1024 * 1024
"""Of a picture, as it is written anew."""
MOST_PIXELS: Final[Mapping[str, int]] = {"image/jpeg": 50_000_000, "image/heic": 25_000_000}
"""Of a picture, by what its header says: looked at before anything is unpacked."""
MOST_PIXELS_OF_OTHERS: Final = 12_000_000
LONGEST_SIDE: Final = 4096
THUMBNAIL_SIDE: Final = 320
LONGEST_NAME: Final = 100
_HEAD: Final = 1024
_JPEG_QUALITY: Final = 88
_BRANDS_OF_HEIC: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"})
_MARKUP: Final = (b"<!doctype", b"<html", b"<head", b"<body", b"<script", b"<svg", b"<?xml")
_FORMATS: Final[Mapping[str, str]] = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
    "image/heic": "HEIF",
}
_SAME: Final[Mapping[str, str]] = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/heif": "image/heic",
}
TAKEN: Final = (*_FORMATS, "application/pdf", "text/plain")
"""The media types that are taken."""


class UploadRefused(Exception):
    """The file is not taken. The words are for whoever sent it, and hold nothing of it."""


class TooLargeToTake(UploadRefused):
    """It is too large: its bytes, or its pixels."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A file as it is kept: its media type by its content, its bytes, its name, a small picture."""

    content_type: str
    content: bytes
    name: str
    thumbnail: bytes | None = None


def take(
    content: bytes,
    *,
    declared: str,
    name: str,
    most: int = FILE_BYTES,
    longest_side: int = LONGEST_SIDE,
) -> Taken:
    """Return a file as it may be kept; ``declared`` is the media type that its sender says it has.

    A picture that is larger than ``longest_side`` is made smaller.

    Raises:
        UploadRefused: it is no such file, or not one of `TAKEN`. TooLargeToTake.
    """
    if not content:
        raise UploadRefused("the file is empty")
    if len(content) > most:
        raise TooLargeToTake(f"the file is larger than {most // (1024 * 1024)} MiB")
    found = sniffed(content)
    said = declared.partition(";")[0].strip().lower()
    said = _SAME.get(said, said)
    if found is None or said != found:
        known = ", ".join(TAKEN)
        raise UploadRefused(f"the file is not what it says it is, or not one of {known}")
    own_name = file_name(name)
    if found in _FORMATS:
        kept, pixels, small = _picture(content, found, longest_side)
        return Taken(kept, pixels, own_name, small)
    if found == "application/pdf":
        _require_plain_pdf(content)
    return Taken(found, content, own_name)


def sniffed(content: bytes) -> str | None:
    """Return the media type that a content's first bytes say, of `TAKEN`; else ``None``.

    What begins as one and says in its head that a browser might run it is none of them.
    """
    head = content[:_HEAD]
    lower = head.lower()
    if any(one in lower for one in _MARKUP):
        return None
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS_OF_HEIC:
        return "image/heic"
    if head.startswith(b"%PDF-"):
        return "application/pdf"
    return "text/plain" if _is_plain_text(content) else None


def file_name(name: str) -> str:
    """Return a name to show and to save under: no path, nothing that steers a terminal."""
    last = name.replace("\\", "/").rpartition("/")[2]
    plain = "".join(
        one for one in last if unicodedata.category(one)[0] != "C" and one not in '<>:"|?*'
    )
    return " ".join(plain.split()).strip(". ")[:LONGEST_NAME]


def _is_plain_text(content: bytes) -> bool:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    if text.lstrip("\ufeff \t\r\n").startswith("<"):
        return False  # markup of some kind
    return all(
        one in "\t\r\n\ufeff" or unicodedata.category(one) not in {"Cc", "Cs"} for one in text
    )


def _require_plain_pdf(content: bytes) -> None:
    """Refuse a PDF that is cut off, goes on as something else, or says openly that it runs things.

    Inside of compressed parts is not looked: viewers ask before they run anything from there.
    """
    if b"%%EOF" not in content[-_HEAD:]:
        raise UploadRefused("the PDF is cut off, or something else follows it")
    if any(
        one in content for one in (b"/JavaScript", b"/JS ", b"/JS(", b"/Launch", b"/EmbeddedFile")
    ):
        raise UploadRefused("the PDF runs something, or carries other files")
    if any(one in content.lower() for one in (b"<script", b"<html", b"<svg")):
        raise UploadRefused("the PDF is something else as well")


def _picture(content: bytes, media_type: str, longest_side: int) -> tuple[str, bytes, bytes]:
    """Return media type and bytes of the picture written anew, and of a small one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _written_anew(content, media_type, longest_side)
        except UploadRefused:
            raise
        except (
            UnidentifiedImageError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
            OSError,
            ValueError,
            SyntaxError,  # of Pillow, for a broken PNG
            EOFError,
            OverflowError,
            MemoryError,
            RuntimeError,  # of libheif
        ):
            raise UploadRefused("the picture cannot be read") from None


def _written_anew(given: bytes, media_type: str, longest_side: int) -> tuple[str, bytes, bytes]:
    picture = _opened(given, media_type)
    ImageOps.exif_transpose(picture, in_place=True)
    plain = _in_srgb(picture)
    seen_through = plain.mode in {"RGBA", "LA", "PA"} or "transparency" in plain.info
    mode = "RGBA" if seen_through else "RGB"
    if plain.mode != mode:
        plain = plain.convert(mode)
    plain.info.clear()
    if max(plain.size) > longest_side:
        plain.thumbnail((longest_side, longest_side))
    kept = "image/png" if media_type in {"image/png", "image/gif"} or seen_through else "image/jpeg"
    small = ImageOps.contain(plain, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    content = _saved(plain, kept)
    while len(content) > KEPT_BYTES:  # a picture that hardly packs is kept smaller
        plain.thumbnail((plain.width // 2, plain.height // 2))
        content = _saved(plain, kept)
    return kept, content, _saved(_on_white(small), "image/jpeg")


def _opened(given: bytes, media_type: str) -> Image.Image:
    """Return the pixels, no more of them than are kept: copies of large ones fill the memory."""
    picture: Image.Image
    most = MOST_PIXELS.get(media_type, MOST_PIXELS_OF_OTHERS)
    if media_type == "image/heic":
        heif = pillow_heif.open_heif(io.BytesIO(given), convert_hdr_to_8bit=True)
        width, height = heif.size
        _require_size(width, height, most)
        picture = heif.to_pillow()
        del heif  # it has the pixels once more
    else:
        picture = Image.open(io.BytesIO(given), formats=[_FORMATS[media_type]])
        if picture.mode == "CMYK":  # unpacked whole before its colours are changed
            most = MOST_PIXELS_OF_OTHERS
        _require_size(picture.width, picture.height, most)
        half = LONGEST_SIDE // 2
        picture.draft("RGB", (half, half))  # a large JPEG is unpacked smaller
    picture.load()
    if max(picture.size) > LONGEST_SIDE:
        if picture.mode == "P":
            picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return picture


def _require_size(width: int, height: int, most: int) -> None:
    if width < 1 or height < 1 or width * height > most:
        raise TooLargeToTake(f"the picture has more than {most // 1_000_000} million pixels")


def _in_srgb(picture: Image.Image) -> Image.Image:
    """Return the picture in the colours that every screen assumes; its own profile is left out."""
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode not in {"RGB", "RGBA", "CMYK", "L"}:
        return picture
    mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    try:
        changed = ImageCms.profileToProfile(
            picture,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode=mode,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture  # a broken profile changes how it looks a little
    return picture if changed is None else changed


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode != "RGBA":
        return picture
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=picture.getchannel("A"))
    return white


def _saved(picture: Image.Image, media_type: str) -> bytes:
    held = io.BytesIO()
    save: Callable[..., None] = picture.save
    if media_type == "image/png":
        save(held, "PNG", optimize=False)
    else:
        save(held, "JPEG", quality=_JPEG_QUALITY, exif=b"", icc_profile=None)
    return held.getvalue()
