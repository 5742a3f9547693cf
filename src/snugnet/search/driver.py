"""The one loop that runs every search method: archive, checkpoint, resumption, progress."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from snugnet.errors import SearchError
from snugnet.files import locked, remove_temporaries, write_atomically
from snugnet.fingerprint import Fingerprint, describe_differences, digest, fingerprint
from snugnet.search.archive import Archive, keys
from snugnet.search.method import Method, Round
from snugnet.search.problem import Problem
from snugnet.search.result import SearchResult
from snugnet.spaces import Population

CHECKPOINT = "search.npz"
_DRAWS = 2  # version of how rounds draw: a search does not go on with other draws than it began with
_STOCK = 4096  # samples drawn at once, for as many rounds as they suffice


def run_search(
    problem: Problem,
    method: Method,
    *,
    seed: int = 0,
    folder: Path | None = None,
    scorer: str | Fingerprint = "",
    chunk: int = 4096,
    progress: bool = True,
    fresh: bool = False,
    checkpoint_seconds: float = 5.0,
    on_start: Callable[[], None] = lambda: None,
) -> SearchResult:
    """Run a search to its end, from its checkpoint if there is one.

    A search that was killed and is run again gives, bit for bit, what it would have given.

    Args:
        problem: what is searched.
        method: how.
        seed: with the number of a round it determines every draw.
        folder: where the checkpoint :data:`CHECKPOINT` is kept; nothing is kept without it.
        scorer: what the scores are, in a few words or as a fingerprint: a checkpoint of other scores is refused.
        chunk: rows scored together; after each a checkpoint may be written.
        progress: whether to show a bar.
        fresh: begin anew, whatever the folder holds.
        checkpoint_seconds: time between two checkpoints; one is also written at the end.
        on_start: called once all is checked, before any work.

    Raises:
        BusyError: another process searches in this folder.
        SearchError: the method does not fit the problem, the checkpoint belongs to another search or is damaged, or a score
            is not finite.
    """
    run = _Run(problem, method.on(problem), seed, folder, scorer, chunk, checkpoint_seconds)
    if folder is None:
        return run.run(progress, fresh, on_start)
    with locked(folder):
        remove_temporaries(folder / CHECKPOINT)
        return run.run(progress, fresh, on_start)


@dataclass
class _Run:
    problem: Problem
    method: Method
    seed: int
    folder: Path | None
    scorer: str | Fingerprint
    chunk: int
    checkpoint_seconds: float
    done: int = 0  # rounds
    entered: int = 0  # architectures of those
    spent: float = 0.0
    survivors: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))
    _stock: dict[int, Population] = field(default_factory=dict)
    _saved: float = field(default_factory=time.monotonic)
    _since: float = field(default_factory=time.monotonic)

    def run(self, progress: bool, fresh: bool, on_start: Callable[[], None]) -> SearchResult:
        from snugnet.progress import progress_bar

        self.archive = Archive(self.problem.space.d, 1 + len(self.problem.columns))
        if self.folder is not None and not fresh:
            self._resume(self.folder / CHECKPOINT)
        on_start()
        wanted = self.method.evaluations + len(self.problem.first())
        with progress_bar(self.method.name, wanted, done=len(self.archive), shown=progress) as advance:
            try:
                while self.done < self.method.rounds:
                    self._round(advance if progress else None)
            except BaseException:
                self._save()  # nothing that was scored is lost, however recent
                raise
        if not len(self.archive):
            raise SearchError(f"{self.method.name}: there was nothing to evaluate")
        self._save()
        return SearchResult(self.problem, self.archive, self.survivors, self._seconds(), wanted)

    def _round(self, advance: Callable[..., None] | None) -> None:
        rng = np.random.default_rng((self.seed, self.done))
        now = Round(self.problem, self.archive, self.survivors, self.done, rng, self._stock_of_round)

        def after_chunk(n: int, remembered: bool) -> None:
            if advance is not None:
                advance(f"best {self.archive.scores.max():.4f}", by=n)
            if not remembered and time.monotonic() - self._saved > self.checkpoint_seconds:
                self._save()

        def evaluate(rows: Population) -> list[int]:
            score = self.problem.score
            places: list[int] = self.archive.evaluate(rows, score, chunk=self.chunk, after_chunk=after_chunk).tolist()
            return places

        given = [] if self.done else evaluate(self.problem.first())  # before the method's own, which then are others
        places = evaluate(self.method.propose(now))
        pool = np.fromiter(dict.fromkeys([*self.survivors.tolist(), *given, *places]), dtype=np.intp)
        survivors, entered = self.method.select(now, pool), len(self.archive)
        # no call stands between these: an interrupt finds the state before them or after them
        self.survivors, self.entered, self.done = survivors, entered, self.done + 1

    def _stock_of_round(self) -> Population:
        """Samples of this round, drawn for many rounds at once (much faster); a function of seed and round.

        The first round wants more than a share, and under several limits drawing is slow enough to be done on demand.
        """
        if self.done == 0 or not self.problem.fast_samples:
            return np.zeros((0, self.problem.space.d), dtype=np.int16)
        share = -(-self.method.evaluations // self.method.rounds)  # a whole round of samples
        rounds = max(1, min(_STOCK // share, self.method.rounds))
        block, place = divmod(self.done, rounds)
        if block not in self._stock:
            rng = np.random.default_rng((self.seed, block, 1))
            self._stock = {block: self.problem.sample(rounds * share, rng)}
        return self._stock[block][place * share : (place + 1) * share]

    def _seconds(self) -> float:
        return self.spent + time.monotonic() - self._since

    # -- checkpoint ----------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Write the archive, and how far it belongs to rounds that are finished; no pickle."""
        if self.folder is None:
            return
        buffer = io.BytesIO()
        rows, values = self.archive.scored()
        state = {
            "of": self._made_with(), "done": self.done, "entered": self.entered, "seconds": self._seconds(),
        }  # fmt: skip
        np.savez(
            buffer,
            rows=rows,
            values=values,
            survivors=self.survivors,
            state=np.array(json.dumps(state)),
        )
        write_atomically(self.folder / CHECKPOINT, buffer.getvalue())
        self._saved = time.monotonic()

    def _made_with(self) -> Fingerprint:
        """What a checkpoint must have been made with."""
        costs = {name: digest(*table.arrays().values()) for name, table in sorted(self.problem.tables.items())}
        return fingerprint(
            space=self.problem.space.to_json(),
            costs=costs,
            budgets=self.problem.limits,
            settings=self.method.depends_on(self.problem),
            seed=self.seed,
            draws=_DRAWS,
            scorer=self.scorer,
            chunk=self.chunk,
            columns=self.problem.columns,
            **({} if self.problem.start is None else {"start": digest(self.problem.start)}),
            **({"at_least": self.problem.at_least} if self.problem.at_least else {}),
        )

    def _resume(self, path: Path) -> None:
        if not path.exists():
            return
        try:
            with np.load(path, allow_pickle=False) as file:
                rows, values, survivors = file["rows"], file["values"], file["survivors"]
                state = json.loads(str(file["state"]))
            made = dict(state["of"])
            self.done, self.entered, self.spent = int(state["done"]), int(state["entered"]), float(state["seconds"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise _unreadable(path, error) from error
        if differ := describe_differences(made, self._made_with()):
            raise SearchError(
                f"{path} belongs to another search (not the same {differ}); give another folder, or begin anew with --fresh"
            )
        if not self._fits(rows, values, survivors):
            raise _unreadable(path, "its arrays do not fit together")
        self.archive.recall(rows, values, self.entered)
        self.survivors = survivors

    def _fits(self, rows: NDArray[Any], values: NDArray[Any], survivors: NDArray[Any]) -> bool:
        """Whether the arrays of a checkpoint can be those of this search, stopped after ``done`` rounds."""
        space, n = self.problem.space, len(rows) if rows.ndim else 0
        return bool(
            0 <= self.done <= self.method.rounds
            and 0 <= self.entered <= n
            and rows.dtype == np.int16
            and rows.shape == (n, space.d)
            and ((rows >= 0) & (rows < space.num_options)).all()
            and np.array_equal(space.canonical(rows), rows)
            and len(set(keys(rows))) == n
            and values.shape == (n, 1 + len(self.problem.columns))
            and np.isfinite(values[:, 0]).all()
            and survivors.ndim == 1
            and survivors.dtype == np.intp
            and ((survivors >= 0) & (survivors < self.entered)).all()
        )


def _unreadable(path: Path, why: object) -> SearchError:
    return SearchError(f"{path} is no checkpoint that can be read ({why}); begin anew with --fresh")
