"""Names and values in messages: cut short, and quoted where they could be taken for several."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_MOST_SHOWN = 10  # names in a list
_QUOTE = '"'
_LONGEST = 60  # characters of a value, which can be an image in base64


def cut(text: str, longest: int = _LONGEST) -> str:
    """A text in one line, with dots for what lies beyond ``longest`` characters."""
    line = " ".join(text[: 4 * longest].split())
    return line if len(line) <= longest and len(text) <= 4 * longest else line[: longest - 3] + "..."


def shown(value: object, longest: int = _LONGEST) -> str:
    """A value as Python writes it, cut short."""
    if isinstance(value, (str, bytes)) and len(value) > longest:
        value = value[:longest]
        return repr(value)[: longest - 3] + "..."
    return cut(repr(value), longest)


def one_form(name: str) -> str:
    """A name in Unicode's composed form (NFC): macOS writes "é" as two characters, and others as one."""
    return unicodedata.normalize("NFC", name)


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "group"


def look(name: str) -> str:
    """A name as people see it: without forms of letters, spaces around, and what is not seen; capitals stay."""
    plain = "".join(each for each in unicodedata.normalize("NFKC", name) if unicodedata.category(each) != "Cf")
    return " ".join(plain.split())


def quoted(name: str) -> str:
    """A name as lists of names take it (``--classes``): in double quotes if it has a comma or such quotes itself; cut short."""
    return joined([name if len(name) <= _LONGEST else name[: _LONGEST - 3] + "..."])


def joined(names: Iterable[str]) -> str:
    """Names as ``--classes`` takes them, whole: commas between them, and double quotes around those that have one."""
    return ",".join(
        f'"{name.replace(_QUOTE, 2 * _QUOTE)}"' if not name or name != name.strip() or set(name) & set(',"\n') else name
        for name in names
    )


def listed(names: Iterable[str], most: int = _MOST_SHOWN) -> str:
    """Names with commas between them, each :func:`quoted`; beyond ``most`` they are counted."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(map(quoted, every[:most])) + more
