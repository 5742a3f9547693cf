"""The page as people use it: what it shows is what the API says."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from running_service import process, wait
from tiny_family import tiny_family

from snugnet.client import Client

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

TOKEN = "of-sixteen-letters-or-more"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service keeps what it made."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def changing(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family that a test changes."""
    return Path(shutil.copytree(folder, tmp_path_factory.mktemp("changing") / "changing"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family of 120 classes whose names shells and addresses must not take apart."""
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("many")
    for place in range(120):
        for split, count in (("train", 2), ("test", 1)):
            below = root / "data" / split / f"group {place % 4}" / f"class {place:03d}, the 'other' & \"all\""
            below.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(np.full((8, 8, 3), 2 * place + i, np.uint8)).save(below / f"{i}.png")
    return tiny_family(root / "many", {"data": {"source": str(root / "data"), "resolution": 8}})


Running = tuple[subprocess.Popen[str], str]


@pytest.fixture(scope="module")
def running(folder: Path, changing: Path, many: Path, cache: Path) -> Iterator[Running]:
    """A service with three families, and its address."""
    with process(folder, changing, many, "--port", "0", "--cache", cache) as service:
        yield service


@pytest.fixture(scope="module")
def url(running: Running) -> str:
    """Its address."""
    return running[1]


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    """Who asks it without a page."""
    return Client(url)


def picture(seed: int) -> bytes:
    """An image file."""
    import numpy as np
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def shown_id(page: Page) -> str:
    """The network on the screen: the curl lines name it."""
    text = page.locator('[data-lines="curl"] code').inner_text()
    return re.findall(r"networks/([\w-]+)\.onnx", text)[0]


def amount(page: Page, cost: str) -> Locator:
    """The field of a budget."""
    return page.locator(f'.budget[data-cost="{cost}"] .amount')


def slider(page: Page, cost: str) -> Locator:
    """The slider of a budget."""
    return page.locator(f'.budget[data-cost="{cost}"] [type=range]')


def limit(page: Page, cost: str, text: str) -> None:
    """Set a budget by hand."""
    amount(page, cost).fill(text)
    amount(page, cost).press("Enter")


@contextmanager
def another_network(page: Page) -> Iterator[None]:
    """Waits until what is done in here has brought another one."""
    before = shown_id(page)
    yield
    wait(lambda: shown_id(page) != before)


def test_classes_of_a_group_and_of_one_s_own(opened: Any, url: str, client: Client) -> None:
    groups = client.family("digits")["groups"]
    second = list(groups)[1]
    with opened(url) as page:
        page.get_by_role("radio", name=second).check()
        page.wait_for_function(
            "name => document.querySelector('h2#network-title')?.innerText.endsWith(name)", arg=second
        )
        assert page.locator(".outputs .name").all_inner_texts() == groups[second]
        added = next(name for name in client.family("digits")["classes"] if name not in groups[second])
        with another_network(page):
            page.get_by_role("checkbox", name=added, exact=True).check()
        wait(lambda: page.locator(".outputs .name").all_inner_texts() == [*groups[second], added])
        assert shown_id(page) == client.specialize("digits", [*groups[second], added])["id"]
        link, same = page.url, shown_id(page)

        page.get_by_role("button", name="Untick all").click()
        assert page.get_by_text("Tick at least two classes").is_visible()
        page.reload()
        page.get_by_text("Tick at least two classes").wait_for()  # and not the first superclass
        page.get_by_role("checkbox", name=added, exact=True).check()
        refusal = page.locator("[aria-labelledby=classes-title] .problem")
        refusal.wait_for()
        assert refusal.inner_text() == f"a network tells at least two classes apart, got {added}"
    with opened(link) as page:  # a link shows the same
        assert shown_id(page) == same


def test_ends_move_and_what_is_not_feasible_is_said(opened: Any, url: str, client: Client) -> None:
    group = next(iter(client.family("digits")["groups"]))

    def ends(page: Page, cost: str) -> tuple[float, float]:
        return float(slider(page, cost).get_attribute("min") or 0), float(slider(page, cost).get_attribute("max") or 0)

    def feasible(cost: str, **budgets: str) -> tuple[float, float]:
        found = client.ranges("digits", group, **budgets)[cost]
        return found["feasible_low"], found["feasible_high"]

    with opened(url) as page:
        wait(lambda: ends(page, "params") == feasible("params"))
        limit(page, "madds", "30%")
        wait(lambda: ends(page, "params") == feasible("params", madds="30%"))
        assert ends(page, "params")[1] < feasible("params")[1]
        with another_network(page):
            slider(page, "params").fill(str(ends(page, "params")[0]))
        wait(lambda: ends(page, "madds") == feasible("madds", params=amount(page, "params").input_value()))
        assert client.specialize("digits", group, madds="30%", params=amount(page, "params").input_value())[
            "id"
        ] == shown_id(page)

        limit(page, "madds", "1")
        refusal = page.locator('.budget[data-cost="madds"] .problem')
        refusal.wait_for()
        assert refusal.inner_text().startswith("no network of")
        assert "madds <= 1" in refusal.inner_text()
        assert amount(page, "madds").get_attribute("aria-invalid") == "true"
        assert page.get_by_role("button", name="Download ONNX").is_disabled()
        limit(page, "madds", "a few")
        wait(lambda: "a few" in refusal.inner_text())
        limit(page, "madds", "1.2.3")
        wait(lambda: slider(page, "madds").get_attribute("aria-valuetext") == "at most 1.2.3")
        page.get_by_role("button", name="No limit of madds").click()
        refusal.wait_for(state="detached")
        assert page.get_by_role("button", name="Download ONNX").is_enabled()


def test_what_is_shown_is_what_the_api_says(opened: Any, url: str, client: Client) -> None:
    groups = list(client.family("digits")["groups"])
    network = client.specialize("digits", groups[0], madds="20%")
    path = f"families/digits/networks/{network['id']}"
    blueprint = client._json(f"{path}/blueprint")
    with opened(f"{url}/#group={groups[0]}&budget.madds=20%25") as page:
        assert shown_id(page) == network["id"]
        boxes = page.locator("button.box")
        wait(lambda: boxes.count() == len(blueprint["blocks"]) and page.locator("li .skipped").count() > 0)
        for box, block in zip(boxes.all(), blueprint["blocks"], strict=True):
            words = box.get_attribute("aria-label") or ""
            assert words.startswith(f"{block['name']}, kernel {block['kernel']}×{block['kernel']}, ")
            assert f"{block['in_channels']} → {block['out_channels']} channels" in words
            assert box.inner_text() == str(block["kernel"])
        largest = client._json(f"families/digits/networks/{blueprint['largest']}/blueprint")
        assert boxes.count() + page.locator("li .skipped").count() == len(largest["blocks"])

        whole = client._json(f"families/digits/networks/{blueprint['all_classes']}/blueprint")
        for key, each in (("this", blueprint), ("largest", largest), ("all", whole)):
            for cost in ("madds", "params", "activations"):
                cell = page.locator(f'tr[data-cost="{cost}"] td.{key}[data-value]')
                assert float(cell.get_attribute("data-value") or 0) == each["costs"][cost]
        page.get_by_text(re.compile("^Measured on")).wait_for()
        accuracy = client._json(path)["validation_accuracy"]
        assert page.locator('[data-figure="accuracy"]').inner_text() == f"{100 * accuracy:.1f}%"
        on_these = client._json(f"families/digits/networks/{blueprint['all_classes']}?images_of={network['id']}")
        assert (
            page.locator('tr[data-cost="accuracy"] td.all').inner_text()
            == f"{100 * on_these['validation_accuracy']:.1f}%"
        )
        curve = client.curve("digits", groups[0])["points"]
        assert page.locator(".plot .point").count() == len({each["id"] for each in curve})
        assert {each.get_attribute("data-mark") for each in page.locator(".mark").all()} == {"this", "largest", "all"}
        page.locator(".over select").select_option("params")
        page.get_by_text("params, params").wait_for()


def test_two_are_compared(opened: Any, url: str, client: Client) -> None:
    groups = list(client.family("digits")["groups"])
    with opened(f"{url}/#group={groups[0]}&budget.madds=80%25") as page:
        first = shown_id(page)
        page.get_by_role("button", name="Keep as A and compare").click()
        with another_network(page):
            page.get_by_role("radio", name=groups[2]).check()
        with another_network(page):
            limit(page, "madds", "10%")
        second = shown_id(page)
        for key, group, share in (("a", groups[0], "80%"), ("this", groups[2], "10%")):
            expected = client.specialize("digits", group, madds=share)
            cell = page.locator(f'tr[data-cost="madds"] td.{key}[data-value="{expected["costs"]["madds"]}"]')
            cell.wait_for()
            assert (first, second)[key == "this"] == expected["id"]
        assert page.locator(".stage").first.locator("button.box").count() == 2
        link = page.url
        page.get_by_role("button", name="Swap A and B").click()
        wait(lambda: shown_id(page) == first)
    with opened(link) as page:
        assert shown_id(page) == second
        page.get_by_role("button", name="Stop comparing").click()
        page.get_by_role("button", name="Keep as A and compare").wait_for()
        assert page.locator("td.a").count() == 0
    with opened(f"{url}/#a.group={groups[0]}&a.budget.madds=1") as page:  # an A that cannot be had
        page.get_by_role("alert").filter(has_text="Network A: no network of").wait_for()
        page.get_by_role("button", name="Stop comparing").click()
        page.get_by_role("alert").wait_for(state="detached")
        assert shown_id(page) == client.specialize("digits", groups[0])["id"]


def test_files_and_lines_give_this_very_network(opened: Any, url: str, client: Client, tmp_path: Path) -> None:
    group = next(iter(client.family("digits")["groups"]))
    with opened(f"{url}/#group={group}&budget.madds=50%25&budget.params=90%25") as page:
        with page.expect_download() as download:
            page.get_by_role("button", name="Download ONNX").click()
        network = {"family": "digits", "id": shown_id(page)}
        content = client.download(network)
        assert Path(download.value.path()).read_bytes() == content
        assert download.value.suggested_filename == f"{group}-{network['id'][:8]}.onnx"
        curl, python = (page.locator(f'[data-lines="{name}"] code').inner_text() for name in ("curl", "Python"))
        if shutil.which("curl"):
            answer = subprocess.run(["bash", "-ec", curl], cwd=tmp_path, capture_output=True, check=True).stdout
            assert f'"id": "{network["id"]}"'.encode() in answer
            assert (tmp_path / f"{network['id']}.onnx").read_bytes() == content
        exec(python.replace("network.onnx", str(tmp_path / "network.onnx")), {})
        assert (tmp_path / "network.onnx").read_bytes() == content


def test_an_image_is_shown_to_both_and_not_kept(opened: Any, url: str, client: Client, cache: Path) -> None:
    group = next(iter(client.family("digits")["groups"]))
    image = picture(1)
    with opened(f"{url}/#group={group}&budget.madds=20%25") as page:
        page.locator(".drop input").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": image})
        own = {"family": "digits", "id": shown_id(page)}
        all_classes = client._json(f"families/digits/networks/{own['id']}/blueprint")["all_classes"]
        for network in (own, {"family": "digits", "id": all_classes}):
            answer = page.locator(f'.answer[data-network="{network["id"]}"]')
            answer.locator("li").first.wait_for()
            said = client.predict(network, image)
            assert answer.locator(".name").first.inner_text() == said["predictions"][0]["class"]
            best = max(said["predictions"][0]["probabilities"])
            assert answer.locator(".number").first.inner_text() == f"{100 * best:.1f}%"
            assert re.search(r"in [\d.]+\sms", answer.inner_text())

        # dropped, and broken
        broken = "data => {const d = new DataTransfer(); d.items.add(new File([new Uint8Array(data)], 'b.png', {type: 'image/png'})); return d}"
        given = page.evaluate_handle(broken, list(image[:60]))
        page.locator(".drop").dispatch_event("drop", {"dataTransfer": given})
        answer = page.locator(f'.answer[data-network="{own["id"]}"]')
        answer.locator(".problem").wait_for()
        assert answer.locator(".problem").inner_text().startswith("image cannot be decoded")
        given = page.evaluate_handle(broken, list(picture(2)))
        page.locator(".drop").dispatch_event("drop", {"dataTransfer": given})
        answer.locator(".problem").wait_for(state="detached")
        answer.locator("li").first.wait_for()
    kept = [path for path in cache.rglob("*") if path.is_file()]
    assert kept
    assert not any(image[:60] in path.read_bytes() for path in kept)


def test_by_keyboard_alone(opened: Any, url: str) -> None:
    def tab_to(page: Page, selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                # what has the focus is seen to have it: itself, or the label around it
                assert page.evaluate(
                    "() => [document.activeElement, document.activeElement.parentElement]"
                    ".some(e => getComputedStyle(e).outlineStyle === 'solid' && parseFloat(getComputedStyle(e).outlineWidth) >= 2)"
                )
                return
        raise AssertionError(f"the tabulator does not come to {selector}")

    with opened(url) as page:
        page.locator("#network-title").wait_for()
        tab_to(page, ".skip")
        tab_to(page, "[type=radio]")
        with another_network(page):
            page.keyboard.press("ArrowDown")
        tab_to(page, '.budget[data-cost="madds"] [type=range]')
        with another_network(page):
            page.keyboard.press("ArrowLeft")
            page.keyboard.press("Home")
        assert amount(page, "madds").input_value() == slider(page, "madds").get_attribute("min")
        assert (slider(page, "madds").get_attribute("aria-valuetext") or "").startswith("at most ")
        tab_to(page, ".primary")
        with page.expect_download():
            page.keyboard.press("Enter")
        tab_to(page, "button.box")
        names = [page.evaluate("document.activeElement.id")]
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
            page.keyboard.press(key)
            names.append(page.evaluate("document.activeElement.id"))
        assert names[3] == names[1] != names[0]
        assert page.locator(".pointed-at b").inner_text().strip() == names[3].removeprefix("block-0-")
        tab_to(page, ".drop input")
        tab_to(page, '[data-lines="Python"] button')


def test_on_a_phone_a_projector_and_in_the_dark(opened: Any, url: str) -> None:
    grounds = set()
    for width, scheme in ((360, "light"), (360, "dark"), (1920, "dark")):
        with opened(f"{url}/#group=round&budget.madds=60%25&a.group=curvy", width=width, color_scheme=scheme) as page:
            page.locator("td.a[data-value]").first.wait_for()
            page.get_by_text("All blocks as a table").click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            body = page.evaluate(
                "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
            )
            grounds.add((scheme, *body))
    assert len({ground for _, ground, _ in grounds}) == 2


def test_a_family_that_changes_under_the_page(
    opened: Any, running: Running, url: str, client: Client, changing: Path
) -> None:
    from snugnet.family import load_family

    with opened(f"{url}/#family=changing&group=round&budget.madds=60%25") as page:
        with another_network(page):
            limit(page, "madds", "50%")
        page.get_by_text(re.compile("^Measured on")).wait_for()
        wait(lambda: page.locator(".waits").count() == 0)  # nothing is on its way that would tell of the change early

        def change(mean: float) -> None:
            family = load_family(changing)
            family.mean = (mean, mean, mean)
            family.save(changing)
            before = client.family("changing")["digest"]
            running[0].send_signal(signal.SIGHUP)
            wait(lambda: client.family("changing")["digest"] != before)

        with another_network(page):
            change(0.4)
            limit(page, "madds", "51%")
        page.get_by_text("changing has been loaded anew").wait_for()
        assert shown_id(page) == client.specialize("changing", "round", madds="51%")["id"]
        with another_network(page):  # an id of the old one is no longer known: the new one is asked
            change(0.6)
            page.get_by_role("button", name="Download ONNX").click()
        assert shown_id(page) == client.specialize("changing", "round", madds="51%")["id"]


def test_a_token_is_asked_for_and_a_service_that_stops(opened: Any, folder: Path, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    options = ("--token-file", tmp_path / "token", "--cache", cache)
    with process(folder, "--port", "0", *options) as (running, address), opened(address) as page:
        for given in ("ключ", "another", TOKEN):
            page.get_by_label("Token").fill(given)
            page.get_by_label("Token").press("Enter")
            if given != TOKEN:
                said = "The one that was given is another" if given.isascii() else "signs of ASCII alone"
                page.get_by_text(said).wait_for()
        page.locator("#network-title").wait_for()
        assert page.evaluate("[localStorage.length, document.cookie, location.href.includes('sixteen')]") == [
            0,
            "",
            False,
        ]
        assert 'Authorization: Bearer $SNUGNET_TOKEN"' in page.locator('[data-lines="curl"] code').inner_text()
        with page.expect_download():
            page.get_by_role("button", name="Download ONNX").click()

        running.send_signal(signal.SIGTERM)
        running.wait(60)
        limit(page, "madds", "50%")
        page.get_by_text("The service does not answer").wait_for()
        assert page.get_by_role("alert").count() == 1
        before = shown_id(page)
        with process(folder, "--port", address.rpartition(":")[2], *options):
            page.get_by_text("The service does not answer").wait_for(state="detached")
            wait(lambda: shown_id(page) != before)


def test_a_family_of_many_classes(opened: Any, url: str, tmp_path: Path) -> None:
    with opened(f"{url}/#family=many") as page:
        page.get_by_role("button", name="Tick all", exact=True).click()
        page.get_by_text("120 outputs").wait_for()
        page.get_by_role("button", name="Untick all").click()
        page.get_by_label("Search").fill("CLASS 01")
        assert page.get_by_role("checkbox").count() == 10
        page.get_by_role("button", name="Tick these", exact=True).click()
        page.get_by_text("10 outputs").wait_for()
        if shutil.which("curl"):
            curl = page.locator('[data-lines="curl"] code').inner_text()
            answer = subprocess.run(["bash", "-ec", curl], cwd=tmp_path, capture_output=True, check=True).stdout
            assert f'"id": "{shown_id(page)}"'.encode() in answer


def test_another_family_is_asked_once(opened: Any, url: str, client: Client) -> None:
    with opened(url) as page:
        page.get_by_text(re.compile("^Measured on")).wait_for()
        answers: list[int] = []
        page.on("response", lambda answer: answers.append(answer.status))
        page.get_by_label("Family").select_option("many")
        page.locator('[data-lines="curl"] code', has_text="families/many/").wait_for()
        network = client.specialize("many", next(iter(client.family("many")["groups"])))
        wait(lambda: shown_id(page) == network["id"])
        page.get_by_text(re.compile("^Measured on")).wait_for()
        assert set(answers) <= {200, 429, 503}  # the last two: put off
        assert len(answers) < 40


def test_an_address_with_names_that_are_not_there(opened: Any, url: str, client: Client) -> None:
    first = client.specialize("digits", next(iter(client.family("digits")["groups"])))
    for name in ("constructor", "__proto__"):
        with opened(f"{url}/#family=digits&group={name}&over={name}") as page:
            page.locator("[aria-labelledby=classes-title] .problem", has_text=name).wait_for()
            page.get_by_role("radio").first.check()
            page.get_by_text(re.compile("^Measured on")).wait_for()
            assert page.locator(".over select").input_value() == "madds"
            assert shown_id(page) == first["id"]
        with opened(f"{url}/#family=digits&budget.{name}=3") as page:
            line = page.locator("[aria-labelledby=budgets-title] p.problem", has=page.get_by_role("button"))
            line.get_by_role("button", name="Clear").click()
            wait(lambda: shown_id(page) == first["id"])
            assert page.locator("[aria-labelledby=budgets-title] .problem").count() == 0
        with opened(f"{url}/#family={name}") as page:
            page.get_by_text(f"There is no family “{name}” here; there is digits, changing, many.").wait_for()
            page.get_by_label("Family").select_option("digits")
            wait(lambda: shown_id(page) == first["id"])
            assert page.get_by_role("alert").count() == 0
