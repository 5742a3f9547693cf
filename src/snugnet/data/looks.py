"""What data that is no image looks like, for messages."""

from __future__ import annotations

import base64
import binascii
import re

_TEXT: dict[str, str | tuple[str, ...]] = {  # how files begin, as text
    "hexadecimal digits of a PNG": "89504e47",
    "hexadecimal digits of a JPEG": "ffd8ff",
    "bytes as Python prints them": ("b'", 'b"'),
    "an address on the web": ("http://", "https://", "s3://", "gs://"),
    "an SVG drawing": ("<svg", "<?xml"),
    "a web page": ("<!doctype", "<html"),
    "a printed list": ("[[", "[(", "{"),
}
_ENCODED: dict[str, bytes | tuple[bytes, ...]] = {  # how images begin that are text in base64
    "a PNG": b"\x89PNG",
    "a JPEG": b"\xff\xd8\xff",
    "a JPEG 2000": (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51"),
    "a GIF": b"GIF8",
    "a WebP": b"RIFF",
    "a TIFF": (b"II*\x00", b"MM\x00*"),
    "a BMP": b"BM",
}
_BYTES = {
    "a NumPy file": b"\x93NUMPY",
    "a pickle": b"\x80\x04",
    "a PDF": b"%PDF",
    "a zip archive": b"PK\x03\x04",
    "a gzip archive": b"\x1f\x8b",
    "a Git LFS pointer": b"version https://git-lfs",
    "a DICOM file": None,
    "a HEIC photo": None,
}
_ADVICE = {
    "base64": "decode it (base64.b64decode) and store the bytes",
    "hexadecimal": "decode it (bytes.fromhex) and store the bytes",
    "bytes as": "store the bytes themselves",
    "an address": "fetch the images and give their files",
    "a printed": "store it as nested lists or as the bytes of a file",
    "a data URL": "decode what follows its comma (base64.b64decode) and store the bytes",
    "a Git": "fetch the file itself (git lfs pull)",
}


def looks_like(data: str | bytes) -> str:
    """What text or bytes look like and what to do about it, such as "it looks like base64 of a PNG: ..."; "" if unknown."""
    kind = (_of_bytes(data) if isinstance(data, bytes) else None) or _of_text(data)
    if kind is None:
        return ""
    advice = next((text for start, text in _ADVICE.items() if kind.startswith(start)), "convert it to PNG or JPEG")
    return f"it looks like {kind}: {advice}"


def _of_bytes(data: bytes) -> str | None:
    if data[128:132] == b"DICM":
        return "a DICOM file"
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return "a HEIC photo"
    return next((kind for kind, start in _BYTES.items() if start and data.startswith(start)), None)


def _of_text(data: str | bytes) -> str | None:
    head = data[:200].decode("latin-1") if isinstance(data, bytes) else data[:200]
    head = head.lstrip().removeprefix("\\x")  # as databases print bytes
    lower = head.lower()
    if lower.startswith("data:"):
        return "a data URL"
    for kind, starts in _TEXT.items():
        if lower.startswith(starts):
            return kind
    return _of_base64(head) if len(data) >= 64 else None


def _of_base64(head: str) -> str | None:
    """Of what a text is base64, in either alphabet, if it begins as an image or another file does."""
    text = re.sub(r"\s", "", head)
    if not re.fullmatch(r"[A-Za-z0-9+/_-]+=*", text):  # a path would not be as long without a dot
        return None
    try:
        start = base64.urlsafe_b64decode(text[: len(text.rstrip("=")) // 4 * 4].replace("+", "-").replace("/", "_"))
    except (binascii.Error, ValueError):
        return None
    known = next((kind for kind, begins in _ENCODED.items() if start.startswith(begins)), None)
    if start[4:8] == b"ftyp":
        known = "an AVIF or HEIC photo"
    return f"base64 of {known or _of_bytes(start)}" if known or _of_bytes(start) else None
