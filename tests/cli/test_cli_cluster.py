"""``--cluster``: searches and studies on a Ray of two nodes find what they find here; what cannot be joined is refused in one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_family import TINY

from snugnet import cluster
from snugnet.errors import ClusterError

SEARCH = ("--method", "random", "--evaluations", "5", "--json")
STUDY: dict[str, Any] = {
    "name": "tiny",
    "seeds": [0],
    "budgets": 1,
    "report": "validation",
    "recipe": {key: value for key, value in TINY.items() if key not in ("name", "output", "evaluation")},
    "supernets": {"plain": {}, "other": {"training.superclass_dropout": 0.5}},
    "methods": [{"name": f"Random, {name}", "supernet": name, "search": "random"} for name in ("plain", "other")],
    "tables": {"All": ["Random, plain", "Random, other"]},
}


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Any]:
    """A Ray of two nodes of one core each, on this machine."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'snugnet[cluster]'")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    yield nodes
    nodes.shutdown()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without_seconds(document: Any) -> Any:
    """What does not depend on when and where it was made."""
    if isinstance(document, dict):
        passing = ("seconds", "files", "folder", "output", "machine")
        return {key: without_seconds(value) for key, value in document.items() if key not in passing}
    return [without_seconds(each) for each in document] if isinstance(document, list) else document


def test_a_search_finds_what_it_finds_here(snugnet: Any, family: Path, two_nodes: Any) -> None:
    here = snugnet("search", family, *SEARCH)
    there = snugnet("search", family, *SEARCH, "--cluster", two_nodes.address)
    assert (here.code, there.code) == (0, 0), there.err
    assert without_seconds(json.loads(there.out)) == without_seconds(json.loads(here.out))
    low = ("--budgets", "madds=60%,90%")
    here, there = (snugnet("search", family, *SEARCH, *low, *on) for on in ((), ("--cluster", two_nodes.address)))
    assert without_seconds(json.loads(there.out)) == without_seconds(json.loads(here.out))


def test_a_study_gives_what_it_gives_here(snugnet: Any, tmp_path: Path, two_nodes: Any) -> None:
    (tmp_path / "study.yaml").write_text(json.dumps(STUDY | {"output": "runs/here"}))
    here = snugnet("study", "study.yaml", "--json")
    there = snugnet("study", "study.yaml", "output=runs/there", "--json", "--cluster", two_nodes.address)
    assert (here.code, there.code) == (0, 0), there.err
    assert without_seconds(json.loads(there.out)) == without_seconds(json.loads(here.out))
    assert not list((tmp_path / "runs" / "there").glob(".seen*"))


def test_a_job_that_no_machine_can_do(two_nodes: Any) -> None:
    with cluster.joined(two_nodes.address) as joined:
        for resources, said in (
            ({"threads": 2, "cuda": False}, "more than 1 cores"),
            ({"threads": 1, "cuda": True}, "GPU"),
        ):
            with pytest.raises(ClusterError, match=said):
                joined.submit(time.sleep, 0, **resources)


def test_what_a_job_raises_is_raised_here(two_nodes: Any) -> None:
    def refuse(text: str) -> None:
        raise ClusterError(text)

    with cluster.joined(two_nodes.address) as joined, pytest.raises(ClusterError) as raised, cluster.own_errors():
        joined.submit(refuse, "cannot begin", threads=1, cuda=False).result(timeout=60)
    assert str(raised.value) == "cannot begin"


@pytest.mark.parametrize("command", [("search", "family"), ("study", "study.yaml")])
def test_without_the_extra(
    snugnet: Any, family: Path, tmp_path: Path, command: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.yaml").write_text(json.dumps(STUDY | {"output": "runs/here"}))
    (tmp_path / "family").symlink_to(family)
    monkeypatch.setitem(sys.modules, "ray", None)
    error = snugnet(*command, "--cluster", "local").error
    assert error == "error: this needs ray, which is not installed: pip install 'snugnet[cluster]'"


def test_nothing_is_there() -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'snugnet[cluster]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for given, said in ((address, f"no cluster answers at {address} "), ("nowhere", "got 'nowhere'")):
        with pytest.raises(ClusterError, match=said), cluster.joined(given):
            pass


def test_a_node_that_dies_and_one_that_does_not_answer(two_nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    third = two_nodes.add_node(num_cpus=1)
    two_nodes.wait_for_nodes()
    with cluster.joined(two_nodes.address) as joined:
        assert (len(joined.nodes), joined.cpus) == (3, 3)
        jobs = [joined.submit(time.sleep, 3, threads=1, cuda=False) for _ in range(6)]
        time.sleep(1)
        two_nodes.remove_node(third, allow_graceful=False)
        assert [job.result(timeout=120) for job in jobs] == [None] * 6
    stopped = two_nodes.add_node(num_cpus=1)
    two_nodes.wait_for_nodes()
    raylet = stopped.all_processes["raylet"][0].process.pid
    os.kill(raylet, signal.SIGSTOP)
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 8.0)
    try:
        with pytest.raises(ClusterError, match="does not answer within 8 s"), cluster.joined(two_nodes.address):
            pass
    finally:
        os.kill(raylet, signal.SIGCONT)
        two_nodes.remove_node(stopped, allow_graceful=False)
