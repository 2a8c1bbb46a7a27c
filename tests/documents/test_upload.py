"""What people send: taken by its content, written anew, refused where it is something else."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from fhir_portal.documents import upload
from fhir_portal.documents.upload import (
    FILE_BYTES,
    LONGEST_SIDE,
    MOST_PIXELS_OF_OTHERS,
    THUMBNAIL_SIDE,
    Taken,
    TooLargeToTake,
    UploadRefused,
    file_name,
    sniffed,
    take,
)
from tests.documents.pictures import SECRET, a_pdf, a_picture, a_png_bomb, a_text_bomb

SCRIPT = b"<script>alert(1)</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'


def taken(content: bytes, declared: str) -> Taken:
    return take(content, declared=declared, name="photo.jpg")


@pytest.mark.parametrize(
    ("form", "declared", "kept"),
    [
        ("JPEG", "image/jpeg", "image/jpeg"),
        ("JPEG", "image/jpg", "image/jpeg"),
        ("PNG", "image/png", "image/png"),
        ("GIF", "image/gif", "image/png"),
        ("WEBP", "image/webp", "image/jpeg"),
        ("HEIF", "image/heic", "image/jpeg"),
        ("HEIF", "image/heif", "image/jpeg"),
    ],
)
def test_a_picture_is_kept_without_place_time_and_words(
    form: str, declared: str, kept: str
) -> None:
    content = a_picture(form)
    found = taken(content, declared)
    assert found.content_type == kept
    assert sniffed(found.content) == kept
    again = Image.open(io.BytesIO(found.content))
    assert not again.getexif()
    assert not {"exif", "xmp", "icc_profile", "comment"} & set(again.info)
    assert SECRET not in found.content
    assert found.thumbnail is not None
    small = Image.open(io.BytesIO(found.thumbnail))
    assert max(small.size) == THUMBNAIL_SIDE
    assert not small.getexif()
    if form in {"JPEG", "PNG", "WEBP"}:
        assert SECRET in content
        assert again.size == (480, 640), "it stands upright without being told to"


def test_a_large_picture_becomes_smaller_and_keeps_its_shape() -> None:
    found = taken(a_picture("JPEG", (6000, 3000), exif=b""), "image/jpeg")
    size = Image.open(io.BytesIO(found.content)).size
    assert max(size) <= LONGEST_SIDE
    assert size[0] == 2 * size[1]


def test_a_picture_that_hardly_packs_is_kept_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "KEPT_BYTES", 100_000)
    noise = Image.effect_noise((600, 300), 120).convert("RGBA")
    noise.putalpha(128)
    held = io.BytesIO()
    noise.save(held, "WEBP", quality=1)
    found = taken(held.getvalue(), "image/webp")
    assert found.content_type == "image/png"
    assert len(found.content) <= 100_000
    size = Image.open(io.BytesIO(found.content)).size
    assert size[0] == 2 * size[1]


def test_what_can_be_seen_through_stays_so() -> None:
    found = taken(a_picture("PNG", mode="RGBA"), "image/png")
    assert Image.open(io.BytesIO(found.content)).mode == "RGBA"


def test_pdf_and_plain_text_are_kept_as_they_are() -> None:
    for content, declared in ((a_pdf(), "application/pdf"), ("é\n".encode(), "text/plain")):
        found = taken(content, declared)
        assert (found.content, found.content_type, found.thumbnail) == (content, declared, None)


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        (a_picture("PNG"), "image/jpeg"),
        (a_pdf(), "image/png"),
        (a_picture("JPEG"), "application/pdf"),
        (a_picture("JPEG"), "text/html"),
        (a_picture("JPEG"), ""),
        (SVG, "image/svg+xml"),
        (SVG, "image/png"),
        (SVG, "text/plain"),
        (b"\xef\xbb\xbf  " + SVG, "text/plain"),
        (b"<!DOCTYPE html><p>hello", "text/plain"),
        (b"<p>hello", "text/plain"),
        (b"hello <script>alert(1)</script>", "text/plain"),
        (b'<?xml version="1.0"?><?xml-stylesheet href="x.xsl"?><a/>', "text/plain"),
        (b"\x00\x01\x02", "text/plain"),
        ("\ud800".encode("utf-16-le", "surrogatepass"), "text/plain"),
        (b"PK\x03\x04", "application/zip"),
        (b"MZ\x90\x00", "image/png"),
        (b"BM\x00\x00", "image/bmp"),
        (b"II*\x00" + b"\x00" * 100, "image/tiff"),
        (b"\xff\xd8\xff" + b"\x00" * 100, "image/jpeg"),
        (b"GIF89a" + SCRIPT, "image/gif"),
        (b"GIF89a/*" + b"\x00" * 40 + b"*/=1;alert(1)", "image/gif"),
        (b"\x89PNG\r\n\x1a\n" + b"\x00" * 100, "image/png"),
        (a_picture("JPEG")[:2000], "image/jpeg"),
        (a_picture("HEIF")[:60], "image/heic"),
        (b"%PDF-1.4 cut off", "application/pdf"),
        (b"  " + a_pdf(), "application/pdf"),
        (a_pdf(b"<< /S /JavaScript /JS (app.alert(1)) >>"), "application/pdf"),
        (a_pdf(b"<< /S /Launch /F (calc.exe) >>"), "application/pdf"),
        (a_pdf(b"x" * 2000 + SCRIPT), "application/pdf"),
        (a_pdf() + b"PK\x03\x04" + b"\x00" * 2000, "application/pdf"),
        (b"", "text/plain"),
    ],
)
def test_what_lies_about_itself_or_may_run_is_refused(content: bytes, declared: str) -> None:
    with pytest.raises(UploadRefused):
        taken(content, declared)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP"])
def test_nothing_that_hangs_on_a_picture_is_kept(form: str) -> None:
    """A polyglot: a picture to one reader, a page or an archive to another."""
    content = a_picture(form) + b"\x00" * 2000 + SCRIPT + b"PK\x03\x04"
    found = taken(content, f"image/{form.lower()}")
    assert b"<script" not in found.content
    assert b"PK\x03\x04" not in found.content


@pytest.mark.parametrize("content", [a_png_bomb(), a_text_bomb()], ids=["pixels", "text"])
def test_what_would_unpack_to_more_than_fits_is_refused_or_left_packed(content: bytes) -> None:
    try:
        found = taken(content, "image/png")
    except UploadRefused:
        return
    assert len(found.content) < 100_000


def test_limits_are_looked_at_before_anything_is_unpacked() -> None:
    with pytest.raises(TooLargeToTake, match="MiB"):
        taken(b"x" * (FILE_BYTES + 1), "text/plain")
    with pytest.raises(TooLargeToTake, match="million pixels"):
        taken(a_png_bomb(int(MOST_PIXELS_OF_OTHERS**0.5) + 8), "image/png")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ada\\rash.jpg", "rash.jpg"),
        ("a\u202egpj.exe", "agpj.exe"),
        ('"><img src=x>', "img src=x"),
        ("  .hidden ", "hidden"),
        ("x" * 500, "x" * 100),
        ("", ""),
    ],
)
def test_a_name_leads_nowhere(given: str, shown: str) -> None:
    assert file_name(given) == shown


def test_a_picture_in_the_colours_of_print_is_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is unpacked whole, four bytes for each of its pixels, before its colours are changed."""
    held = io.BytesIO()
    Image.new("CMYK", (20, 20)).save(held, "JPEG")
    assert taken(held.getvalue(), "image/jpeg").content_type == "image/jpeg"
    monkeypatch.setattr(upload, "MOST_PIXELS_OF_OTHERS", 100)
    with pytest.raises(TooLargeToTake):
        taken(held.getvalue(), "image/jpeg")
