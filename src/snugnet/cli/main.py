"""The command ``snugnet``: puts the commands together, and turns what goes wrong into one line and an exit code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from snugnet._version import __version__
from snugnet.cli.common import STOPPED, one_line, say
from snugnet.cli.cost import cost
from snugnet.cli.evaluate import evaluate
from snugnet.cli.export import export
from snugnet.cli.optimise import optimise
from snugnet.cli.plot import plot
from snugnet.cli.predictor import app as predictor
from snugnet.cli.profile import app as profile
from snugnet.cli.quickstart import quickstart
from snugnet.cli.recipe import app as recipe
from snugnet.cli.retrain import retrain
from snugnet.cli.router import router
from snugnet.cli.search import search
from snugnet.cli.search_cell import search_cell
from snugnet.cli.serve import serve
from snugnet.cli.space import app as space
from snugnet.cli.specialize import specialize
from snugnet.cli.study import study
from snugnet.cli.train import train
from snugnet.errors import SnugnetError

WRONG_INPUT = 2
_USAGE_ERROR: type = typer.BadParameter.__bases__[0]  # click's, or typer's own since it has no click below it

app = typer.Typer(
    name="snugnet",
    help="Train one weight-sharing network once; get the network that fits any group of classes and any budget.",
    epilog="Every command has --help, and all but serve --json for machines. Wrong input: one line on standard error, exit code 2.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(shown: bool) -> None:
    if shown:
        print(f"snugnet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for command in (
    quickstart, train, specialize, router, serve, search, search_cell, optimise, retrain, evaluate, export, study, plot,
):  # fmt: skip
    app.command()(command)
app.add_typer(space, name="space")
app.add_typer(recipe, name="recipe")
app.add_typer(predictor, name="predictor")
app.add_typer(profile, name="profile")
app.command()(cost)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: without the program's name; those of the process without it.

    Raises:
        SystemExit: always. 0: done; 2: wrong input, one line on standard error says what; 130: interrupted.
    """
    warnings.formatwarning = _warning_line
    try:
        code = app(args=arguments, prog_name="snugnet", standalone_mode=False)
    except SnugnetError as error:
        say(one_line("error", error))
        code = WRONG_INPUT
    except OSError as error:  # a disk that is full, a folder without permission: nothing of ours to trace
        say(one_line("error", f"{error.filename or 'file'}: {error.strerror or error}"))
        code = WRONG_INPUT
    except typer.Abort:
        code = STOPPED
    except Exception as error:
        if not isinstance(error, _USAGE_ERROR):
            raise
        code = _explain_usage(error)
    sys.exit(code if isinstance(code, int) else 0)


def _warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """One line, as errors have it, instead of Python's two with a place in our source."""
    return f"{one_line('warning', message)}\n"


def _explain_usage(error: Exception) -> int:
    """One line for a wrong option or argument; a command without any shows its help."""
    message = error.format_message()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
    else:
        hint = f" (see '{context.command_path} --help')" if context else ""
        say(one_line("error", f"{message}{hint}"))
    return WRONG_INPUT
