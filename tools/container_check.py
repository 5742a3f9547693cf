"""Follow the Containerfile where nothing is installed but Python, then serve a family from there. ``make container-check``.

    python tools/container_check.py [FAMILY]      runs/digits without it

No container engine is needed: the steps run on a copy-on-write view of this machine (overlayfs, in a mount namespace of their own, so root
is needed), in which ``/usr/local`` is a fresh environment and all that may not be found is hidden. Downloads what snugnet needs, so it is
in no test suite. What is written lies below ``build/container``.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "container"
INSIDE = WORK / "root"
PORT = 8765
HIDDEN = ("root", "home", str(ROOT.relative_to("/")))
"""Folders of this machine in which something could be found that the image would not have."""


def instructions(text: str) -> list[tuple[str, str]]:
    """Of a Containerfile: the words that begin them, and what follows."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def inside(command: list[str], folder: str, user: str) -> list[str]:
    """A command as it is run in the view."""
    environment = ["env", "--chdir", folder, "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin", f"HOME=/tmp/{user}"]
    return ["chroot", f"--userspec={user}", str(INSIDE), *environment, *command]


def view() -> None:
    """Show this machine, read-only below what the steps write, with an empty ``/usr/local``."""
    shutil.rmtree(WORK, ignore_errors=True)
    for name in ("changes", "work", "root"):
        (WORK / name).mkdir(parents=True)
    layers = f"lowerdir=/,upperdir={WORK / 'changes'},workdir={WORK / 'work'}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(INSIDE)], check=True)
    for name in ("proc", "dev"):
        subprocess.run(["mount", "--rbind", f"/{name}", str(INSIDE / name)], check=True)
    for name in HIDDEN:
        if (INSIDE / name).is_dir():
            subprocess.run(["mount", "-t", "tmpfs", "none", str(INSIDE / name)], check=True)
    shutil.rmtree(INSIDE / "usr/local")
    subprocess.run(inside(["/usr/bin/python3", "-m", "venv", "/usr/local"], "/", "root"), check=True)


def build() -> tuple[list[str], str, str]:
    """All steps; what is then run, in which folder, as whom."""
    folder, user, entry = "/", "root", []
    for word, rest in instructions((ROOT / "Containerfile").read_text()):
        print(word, rest[:100], flush=True)
        if word == "WORKDIR":
            folder = rest
            (INSIDE / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                to = INSIDE / folder.lstrip("/") / target
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
                else:
                    shutil.copy(ROOT / source, to)
        elif word == "RUN":
            subprocess.run(inside(["sh", "-c", rest], folder, user), check=True)
        elif word == "USER":
            user = rest
        elif word == "ENTRYPOINT":
            entry = json.loads(rest)
        elif word not in ("FROM", "VOLUME", "EXPOSE", "CMD"):
            raise SystemExit(f"what {word} does is not known here")
    return entry, folder, user


def answer(path: str, body: object = None) -> bytes:
    """What the service says."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read()


def serve(family: Path, entry: list[str], folder: str, user: str) -> None:
    """Start it, ask it for a network's file, and end it."""
    mounted = INSIDE / "families" / family.name
    shutil.copytree(family, mounted)
    begun = time.monotonic()
    with subprocess.Popen(inside([*entry, "--port", str(PORT), family.name], folder, user)) as service:
        try:
            while True:
                try:
                    answer("/v1/ready")
                    break
                except OSError:
                    if service.poll() is not None or time.monotonic() - begun > 120:
                        raise SystemExit("the service did not become ready") from None
                    time.sleep(0.1)
            print(f"ready after {time.monotonic() - begun:.1f} s")
            group = next(iter(json.loads(answer(f"/v1/families/{family.name}"))["groups"]))
            asked = {"scenarios": [{"group": group, "budgets": {"madds": "40%"}}]}
            made = json.loads(answer(f"/v1/families/{family.name}/networks", asked))["networks"][0]
            file = answer(f"/v1/families/{family.name}/networks/{made['id']}.onnx")
            print(
                f"{group}: {made['costs']['madds']} MAdds, a file of {len(file)} bytes; the page has {len(answer('/'))}"
            )
        finally:
            service.terminate()
    if service.returncode not in (0, -signal.SIGTERM):  # uvicorn ends in order, and then as the signal would have it
        raise SystemExit(f"the service ended with {service.returncode}")
    print("ended as it was asked to")


if __name__ == "__main__":
    if os.environ.get("SNUGNET_IN_NAMESPACE") != "1":  # once more, where mounts end with the process
        os.environ["SNUGNET_IN_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])
    view()
    serve(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/digits").resolve(), *build())
