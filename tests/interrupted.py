"""Ctrl-C in the middle of a command, for tests of what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"


def interrupt(command: list[str], folder: Path, checkpoint: Path) -> None:
    """Run ``snugnet`` and stop it from the keyboard once its checkpoint is there: one line, code 130, nothing on standard output.

    Args:
        command: what follows ``snugnet``.
        folder: that it runs in.
        checkpoint: that it writes there; is there afterwards.
    """
    running = subprocess.Popen(
        [sys.executable, "-m", "snugnet", *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where pytest runs in the background
    )
    try:
        for _ in range(1200):
            if checkpoint.exists() or running.poll() is not None:
                break
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (running.returncode, out) == (130, ""), err
    assert err.splitlines()[-1] == "stopped; run the same command to go on"
    assert "Traceback" not in err
    assert checkpoint.exists()
