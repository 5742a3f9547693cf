"""The families of a service, and how they are loaded anew while requests go on."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from snugnet.errors import SnugnetError
from snugnet.family import from_pretrained, load_family
from snugnet.serve.hosted import Hosted
from snugnet.serve.problems import NotFound, Unavailable
from snugnet.texts import listed, shown

log = logging.getLogger(__name__)


class Families:
    """Families by name. Requests hold on to the one that they began with, so a new one drops none of them.

    Attributes:
        sources: the folder of each, or its name on the hub.
        current: those that are whole.
        faults: why others could not be loaded, or not be loaded anew.
    """

    def __init__(self, sources: Mapping[str, str], sizes: Callable[[int], None]) -> None:
        self.sources, self.sizes = sources, sizes
        self.current: dict[str, Hosted] = {}
        self.faults: dict[str, str] = {}
        self._executor = ThreadPoolExecutor(1, "generator")
        self._loading = threading.Lock()

    def load(self) -> None:
        """Load all of them; of one that is damaged the one before stays. Takes seconds."""
        with self._loading:
            current, faults = {}, {}
            for name, source in self.sources.items():
                try:
                    family = load_family(source) if Path(source).is_absolute() else from_pretrained(source)
                    family.specialize_many([(list(family.classes), {})])  # the first call prepares the tables
                    current[name] = Hosted(name, family, self._executor, self.sizes)
                    log.info("family loaded", extra={"family": name, "digest": current[name].identities.digest})
                except (SnugnetError, OSError) as error:
                    faults[name] = " ".join(str(error).split())
                    log.error("family not loaded", extra={"family": name, "reason": faults[name]})
                    if name in self.current:
                        current[name] = self.current[name]
            self.current, self.faults = current, faults
            gc.unfreeze()
            gc.collect()
            gc.freeze()  # else every full collection looks through all families, while requests wait

    def get(self, name: str) -> Hosted:
        """The family of a name.

        Raises:
            NotFound: there is none.
            Unavailable: it could not be loaded.
        """
        found = self.current.get(name)
        if found is not None:
            return found
        if name in self.faults:
            raise Unavailable(f"{name} could not be loaded: {self.faults[name]}")
        raise NotFound(f"there is no family {shown(name)} here; families: {listed(self.sources)}")

    def close(self) -> None:
        """Let go of the thread."""
        self._executor.shutdown(wait=False, cancel_futures=True)
