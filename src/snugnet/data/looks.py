"""What data that is no image looks like, for messages."""

from __future__ import annotations

import re

_TEXT: dict[str, str | tuple[str, ...]] = {  # how files begin, as text
    "base64 of a PNG": "iVBORw0KGgo",
    "base64 of a JPEG": "/9j/",
    "base64 of a GIF": "R0lGOD",
    "base64 of a WebP": "UklGR",
    "base64 of a TIFF": ("SUkqA", "TU0AK"),
    "base64 of a BMP": "Qk",
    "hexadecimal digits of a PNG": "89504e47",
    "hexadecimal digits of a JPEG": "ffd8ff",
    "bytes as Python prints them": ("b'", 'b"'),
    "an address on the web": ("http://", "https://", "s3://", "gs://"),
    "an SVG drawing": ("<svg", "<?xml"),
    "a web page": ("<!doctype", "<html"),
    "a printed list": ("[[", "[(", "{"),
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
        exact = kind.startswith("base64")
        if not (head if exact else lower).startswith(starts):
            continue
        # a path may begin so as well; it would not be as long without a dot
        if not exact or (len(data) >= 64 and re.fullmatch(r"[A-Za-z0-9+/=\s_-]+", head)):
            return kind
    return None
