"""What a service is started with, and its limits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import PositiveFloat, PositiveInt

from snugnet.config import Config
from snugnet.errors import ConfigError
from snugnet.files import read_text

TOKEN = "SNUGNET_TOKEN"
"""The environment variable that holds the token."""
_SHORTEST_TOKEN = 16


class Limits(Config):
    """What one service takes on; ``--set name=value`` on the command line."""

    body_bytes: PositiveInt = 16 * 2**20
    """Of the body of a request."""
    scenarios: PositiveInt = 1000
    """A call."""
    trials: PositiveInt = 64
    """Architectures that one call may try on validation images: the sum of its ``best_of``, where that is above 1."""
    images: PositiveInt = 1024
    """A call."""
    pixels: PositiveInt = 25_000_000
    """Of one image, as it is encoded."""
    call_pixels: PositiveInt = 250_000_000
    """Of all images of a call together."""
    open_requests: PositiveInt = 256
    """Worked on at a time in one process; further ones are answered 429."""
    builds: PositiveInt = 1
    """Networks that one process builds at a time."""
    waiting_builds: PositiveInt = 64
    """In one process, those at work included; further ones are answered 429."""
    seconds: PositiveFloat = 60.0
    """For a request to arrive, and again for its answer; a build goes on after that, for the next who asks."""
    disk_bytes: PositiveInt = 2 * 2**30
    """Of files that are kept on the disk; those that were not asked for the longest go first."""
    memory_bytes: PositiveInt = 256 * 2**20
    """Of files that one process keeps in memory."""
    sessions: PositiveInt = 32
    """Networks that one process keeps ready to run."""


@dataclass(frozen=True)
class Settings:
    """A service.

    Attributes:
        families: the folder of each (or its name on the hub), by the name that it has here.
        cache: folder for the files that are made; several processes may share it.
        limits: see :class:`Limits`.
        token: that requests have to bear; None for none.
        origins: of pages elsewhere that may ask (CORS).
        workers: processes.
    """

    families: Mapping[str, str]
    cache: Path
    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    origins: tuple[str, ...] = ()
    workers: int = 1


def read_token(file: Path | None) -> str | None:
    """The token of a file, else of the environment; None where there is neither.

    Raises:
        ConfigError: the file cannot be read, or what it holds is too short, or has other characters than printable ASCII.
    """
    token = os.environ.get(TOKEN) if file is None else read_text(file, ConfigError, "the token ").strip()
    if token is None or (
        len(token) >= _SHORTEST_TOKEN and token.isascii() and token.isprintable() and " " not in token
    ):
        return token
    raise ConfigError(
        f"a token has at least {_SHORTEST_TOKEN} printable ASCII characters and no space; that in {file or TOKEN} is another"
    )
