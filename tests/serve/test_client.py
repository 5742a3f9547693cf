"""Who asks a service: from Python, and from the command line."""

from __future__ import annotations

import json
import re
import runpy
import socket
import sys
import threading
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from PIL import Image

from snugnet.cli.main import main
from snugnet.client import Client
from snugnet.errors import ConfigError, RemoteError
from snugnet.family import Family


def address(service: httpx.Client) -> str:
    """Where a service is."""
    return str(service.base_url).removesuffix("/v1/")


def test_client(service: httpx.Client, family: Family, tmp_path: Path) -> None:
    client = Client(address(service))
    assert [each["name"] for each in client.families()] == ["digits", "broken"]
    assert client.family("digits")["classes"] == list(family.classes)
    assert client.ranges("digits", ["1", "8"], madds="40%")["madds"]["budget"] is not None
    many = client.specialize_many("digits", [("round", {"madds": "20%"}), (["1", "8"], {})])
    assert many == [client.specialize("digits", "round", madds="20%"), client.specialize("digits", ["1", "8"])]
    assert onnx.load(client.save(many[0], tmp_path / "round.onnx"))
    buffer = BytesIO()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(buffer, "PNG")
    assert client.predict(many[0], buffer.getvalue())["predictions"][0]["class"] in many[0]["classes"]
    assert client.curve("digits", "round")["cost"] == "madds"
    with pytest.raises(RemoteError, match=r"^tiny has no group 'none'; groups: "):
        client.specialize("digits", "none")
    with pytest.raises(RemoteError, match="there is no family 'a b' here"):
        client.family("a b")
    with pytest.raises(ConfigError, match=r"an address such as http://127\.0\.0\.1:8000, got 'digits'"):
        Client("digits")
    with pytest.raises(RemoteError, match=r"http://127\.0\.0\.1:9 does not answer"):
        Client("http://127.0.0.1:9").families()


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """The command line: its code, and what it printed."""
    with pytest.raises(SystemExit) as end:
        main([str(each) for each in arguments])
    assert isinstance(end.value.code, int)
    return end.value.code, *capsys.readouterr()


def test_specialize_asks_a_service(
    service: httpx.Client, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = f"{address(service)}/digits"
    asked = ("--classes", "1,8", "--madds", "40%", "--json")
    code, out, _ = run(capsys, "specialize", there, *asked, "--out", tmp_path / "a.onnx")
    assert code == 0
    remote = json.loads(out)
    local = json.loads(run(capsys, "specialize", folder, *asked, "--out", tmp_path / "b.onnx")[1])
    assert {key: remote[key] for key in ("group", "classes", "budgets", "costs", "architecture")} == {
        key: local[key] for key in ("group", "classes", "budgets", "costs", "architecture")
    }
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    code, out, err = run(capsys, "specialize", there, "--group", "round", "--madds", "40%")
    assert (code, "specialised in" in err, "round" in out) == (0, True, True)
    same = [run(capsys, "specialize", place, "--group", "round", "--madds", "1") for place in (there, folder)]
    assert same[0] == same[1] == (2, "", same[0][2])
    assert "has madds <= 1; feasible: " in same[0][2]
    code, _, err = run(capsys, "specialize", there, "--all", "--budgets", "x.csv", "--out", tmp_path)
    assert (code, "with --all, FAMILY is a folder or on the hub" in err) == (2, True)


def test_serve_refuses_before_it_begins(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    token.write_text("short")
    for arguments, text in {
        (tmp_path / "none",): "there is no folder",
        (folder, folder): "two families are called digits; give one another name: OTHER=",
        (folder, "--set", "bodybytes=1"): "no key 'bodybytes'; did you mean 'body_bytes'?",
        (folder, "--set", "seconds=0"): "seconds is 0: input should be greater than 0",
        (folder, "--token-file", token): "a token has at least 16 printable ASCII characters",
        (folder, "--token-file", tmp_path / "none"): "cannot read the token",
        (folder, "--host", "256.0.0.1"): "cannot listen at 256.0.0.1 port 8000",
        (folder, "--host", "192.0.2.1"): "cannot listen at 192.0.2.1 port 8000",
    }.items():
        code, out, err = run(capsys, "serve", *arguments)
        assert (code, out) == (2, ""), arguments
        assert text in err
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-other\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_is_no_service(answer: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, whatever is at the address; and a redirect, which would take the token along, is not followed."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def say() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=say)
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/digits"
        code, out, err = run(capsys, "specialize", address, "--group", "round")
        thread.join()
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "is it a" in err


def test_the_example_of_a_client(
    service: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["service_client", f"{address(service)}/digits"])
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "service_client.py"))
    said = capsys.readouterr().out
    assert "digits: 10 classes; groups round, straight, curvy" in said
    params, budget = (int(each.replace(",", "")) for each in re.findall(r"([\d,]+) params within ([\d,]+)", said)[0])
    assert params <= budget
    assert onnx.load("runs/examples/one-or-seven.onnx")
    assert re.search(r"a seven is a [17]$", said, re.MULTILINE)
