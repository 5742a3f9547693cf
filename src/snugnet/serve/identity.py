"""What a network is called: a hash of what it is, then what it is, so that whoever is asked for it can make it.

No list of what was handed out has to be kept, or shared between processes, or outlive them. The hash is over the family's weights and
images too, so the name says another network as soon as these are others.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import NetworkError, SnugnetError
from snugnet.family import FamilyRecord, Group
from snugnet.fingerprint import digest
from snugnet.texts import shown

PATTERN = "^[0-9a-f]{16}[A-Za-z0-9_-]{4,6000}$"
"""Of a network's id."""
_HASHED = 16  # hexadecimal digits
_WIDTH = 2  # bytes of a class's index, and of a superclass's


@dataclass(frozen=True)
class Identities:
    """Names of a family's networks.

    Attributes:
        family: the family.
    """

    family: FamilyRecord

    @cached_property
    def digest(self) -> str:
        """Of all that a network's file depends on."""
        family = self.family
        tables = [array for table in family.tables.values() for array in table.arrays().values()]
        return digest(
            family.name, family.space.to_json(), family.classes, family.groups, family.mean, family.std, list(family.tables),
            *tables, *family.supernet.state_dict().values(), family.calibration.images,
        )  # fmt: skip

    @cached_property
    def _superclasses(self) -> dict[tuple[int, ...], int]:
        """The place of each superclass of two classes or more, by its classes in order."""
        found: dict[tuple[int, ...], int] = {}
        for place, classes in enumerate(self.family.groups.values()):
            if len(classes) > 1:
                found.setdefault(self.family.class_indices(list(classes)), place)
        return found

    def name(self, class_indices: tuple[int, ...], row: NDArray[np.int16]) -> str:
        """The id of a network.

        Args:
            class_indices: in output order.
            row: the architecture, canonical, (d,).
        """
        place = self._superclasses.get(class_indices)
        classes = [place] if place is not None else [len(class_indices), *class_indices]
        number = 0
        for option, options in zip(row.tolist(), self.family.space.num_options.tolist(), strict=True):
            number = number * options + option
        head = b"".join(each.to_bytes(_WIDTH, "big") for each in classes)
        kind = b"\0" if place is not None else b"\1"
        return self._signed(kind + head + number.to_bytes((number.bit_length() + 7) // 8 or 1, "big"))

    def read(self, name: str) -> tuple[Group, NDArray[np.int16]]:
        """The group and the architecture, (d,), of an id.

        Raises:
            NetworkError: no network of this family has it.
        """
        try:
            content = base64.urlsafe_b64decode(name[_HASHED:] + "=" * (-len(name[_HASHED:]) % 4))
            kind, content = content[0], content[1:]
            first = int.from_bytes(content[:_WIDTH], "big")
            n = 1 if kind == 0 else 1 + first
            classes = [int.from_bytes(content[i * _WIDTH : (i + 1) * _WIDTH], "big") for i in range(n)]
            group: Group = (
                list(self.family.groups)[first] if kind == 0 else [self.family.classes[i] for i in classes[1:]]
            )
            row = self._row(int.from_bytes(content[n * _WIDTH :], "big"), self.family.space.num_options.tolist())
            if self.name(self.family.class_indices(group), row) != name:
                raise ValueError
            return group, row
        except (ValueError, IndexError, binascii.Error, SnugnetError):
            raise NetworkError(
                f"{self.family.name} as it is now has no network {shown(name)}; ask for its scenario again"
            ) from None

    def _row(self, number: int, options: Sequence[int]) -> NDArray[np.int16]:
        row = np.zeros(len(options), dtype=np.int16)
        for i in reversed(range(len(options))):
            number, row[i] = divmod(number, options[i])
        if number or not np.array_equal(self.family.space.canonical(row[None])[0], row):
            raise ValueError
        return row

    def _signed(self, content: bytes) -> str:
        total = hashlib.sha256(self.digest.encode() + content).hexdigest()[:_HASHED]
        return total + base64.urlsafe_b64encode(content).decode().rstrip("=")
