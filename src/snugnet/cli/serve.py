"""``snugnet serve``: families behind HTTP."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from snugnet.bundles import FAMILY
from snugnet.cli.common import is_on_hub, read_assignments, say
from snugnet.errors import ConfigError, FamilyError
from snugnet.texts import slug


def serve(
    families: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]FAMILY...",
            help="Folders of trained families, or USER/NAME on the Hugging Face hub; each is called as its folder, or NAME.",
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes.")] = 1,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For files that were made [default: ~/.cache/snugnet/serve].")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Requests must bear its token, or that of SNUGNET_TOKEN.")
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Pages from there may ask too; may be given several times."),
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=N", help="A limit, such as body_bytes=4000000 or seconds=10 (docs/serve.md)."
        ),
    ] = None,
) -> None:
    """Hand out networks over HTTP: a page, and a REST API under /v1.

    SIGHUP loads all families anew; Ctrl-C and SIGTERM end the service once open requests are answered.
    """
    sources = read_sources(families)
    check_sources(sources)
    from snugnet.config import read_config
    from snugnet.serve.running import serve as run
    from snugnet.serve.settings import Limits, Settings, read_token

    settings = Settings(
        families=sources,
        cache=(cache or _default_cache()).absolute(),
        limits=read_config(Limits, read_assignments(limits, "--set"), "--set"),
        token=read_token(token_file),
        origins=tuple(cors or ()),
        workers=workers,
    )
    listening = _listen(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    say(f"serving {', '.join(sources)} at {address} (Ctrl-C ends it)")
    if settings.token is None and host not in ("127.0.0.1", "::1", "localhost"):
        say(f"whoever reaches {host} may ask: there is no token; --token-file FILE sets one")
    run(settings, listening)


def read_sources(texts: list[str]) -> dict[str, str]:
    """Families by the name that each has in addresses; folders as absolute paths.

    Raises:
        ConfigError: two have one name.
    """
    sources: dict[str, str] = {}
    for text in texts:
        name, equals, place = text.partition("=")
        if not equals or Path(text).exists():
            place = text
            name = Path(text).name if is_on_hub(text) else Path(text).resolve().name
        name = slug(name)
        if name in sources:
            raise ConfigError(f"two families are called {name}; give one another name: OTHER={place}")
        sources[name] = place if is_on_hub(place) else str(Path(place).absolute())
    return sources


def check_sources(sources: dict[str, str]) -> None:
    """Refuse to begin where no family can be read; of several, some may be damaged.

    Raises:
        FamilyError: of the first one.
    """
    faults: list[Any] = []
    for place in sources.values():
        if Path(place).is_absolute():
            try:
                FAMILY.read_index(Path(place))
            except FamilyError as error:
                faults.append(error)
    for fault in faults:
        if len(faults) == len(sources):
            raise fault
        say(f"warning: {fault}")


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snugnet" / "serve"


def _listen(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
        )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen at {host} port {port}: {reason}; give another --port or --host") from None
    listening.set_inheritable(True)
    return listening
