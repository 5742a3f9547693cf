"""The API: each path, what it reads, and whom it asks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from starlette.formparsers import MultiPartException, MultiPartParser

from snugnet._version import __version__
from snugnet.costs import read_budgets
from snugnet.deploy.export import FORMATS
from snugnet.errors import ConfigError, DataError, SnugnetError
from snugnet.family import Group
from snugnet.family.ranges import feasible_ranges
from snugnet.files import plain_number
from snugnet.fingerprint import digest
from snugnet.serve import schemas
from snugnet.serve.builds import Builds
from snugnet.serve.families import Families
from snugnet.serve.hosted import Hosted
from snugnet.serve.identity import PATTERN
from snugnet.serve.images import Runner, read_images, read_pixels
from snugnet.serve.metrics import MEDIA_TYPE as METRICS_TYPE
from snugnet.serve.metrics import Metrics
from snugnet.serve.problems import MEDIA_TYPE, Forbidden, TooLarge, Unavailable, WrongType
from snugnet.serve.settings import Settings
from snugnet.serve.store import Content
from snugnet.texts import shown

JSON = "application/json"
PIXELS = "application/octet-stream"
FORM = "multipart/form-data"
_FILE_TYPES = {".onnx": "application/octet-stream", ".pt2": "application/zip"}
_LOOPBACK = ("127.0.0.1", "::1")

FamilyName = Annotated[str, Path(description="Name of a family.", min_length=1, max_length=200)]
NetworkId = Annotated[str, Path(description="Of a network, as it was handed out.", pattern=PATTERN)]
NetworkQuery = Annotated[
    str | None,
    Query(description="Measure on images of this network's classes, and not on those of all its own.", pattern=PATTERN),
]
GroupQuery = Annotated[str | None, Query(description="Name of a superclass.")]
ClassesQuery = Annotated[
    list[str] | None, Query(description="A class, in the order of the outputs; given several times.")
]
BudgetQuery = Annotated[
    list[str] | None, Query(description="NAME=N, such as madds=40M or madds=40%; given several times.")
]


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": "A problem.", "content": content} for status in statuses}


_USUAL = _problems(400, 401, 404, 408, 413, 422, 429, 500, 503)
_FILE = {
    200: {"description": "The file.", "content": {PIXELS: {}, "application/zip": {}}},
    304: {"description": "As it was."},
}
_PREDICT = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            FORM: {"schema": {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}},
            PIXELS: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def read_group(group: str | None, classes: Sequence[str] | None) -> Group:
    """The one of the two that is given.

    Raises:
        ConfigError: both are, or neither is.
    """
    if (group is None) == (classes is None):
        both = "neither is given" if group is None else "both are given"
        raise ConfigError(f"the classes are given by group or by classes, one of the two; {both}")
    return list(classes or ()) if group is None else group


class Routes:
    """What the paths do.

    Attributes:
        settings: of the service.
        families: that it has.
        builds: slow work.
        metrics: what is counted.
    """

    def __init__(self, settings: Settings, families: Families, builds: Builds, metrics: Metrics) -> None:
        self.settings, self.families, self.builds, self.metrics = settings, families, builds, metrics
        self._runner = Runner(settings.limits.sessions)
        self._threads = ThreadPoolExecutor(2, "request")

    def router(self) -> APIRouter:
        """All paths, under ``/v1``."""
        router = APIRouter(prefix="/v1")

        def add(
            path: str, endpoint: Any, answer: Any = None, methods: Sequence[str] = ("GET",), **options: Any
        ) -> None:
            own = {200: {"model": answer}} if answer else {}
            responses = {**_USUAL, **own, **options.pop("responses", {})}
            router.add_api_route(
                path, endpoint, methods=list(methods), responses=responses, response_model=None,
                operation_id=endpoint.__name__, **options,
            )  # fmt: skip

        networks = "/families/{family}/networks"
        add("/families", self.list_families, schemas.FamilyList)
        add("/families/{family}", self.show_family, schemas.FamilyAnswer)
        add("/families/{family}/costs", self.show_ranges, schemas.RangesAnswer)
        add("/families/{family}/curve", self.show_curve, schemas.CurveAnswer)
        add(networks, self.specialize, schemas.NetworkAnswer | schemas.NetworksAnswer, ["POST"])
        add(f"{networks}/{{network}}.onnx", self.download_onnx, responses=_FILE, response_class=Response)
        add(f"{networks}/{{network}}.pt2", self.download_pt2, responses=_FILE, response_class=Response)
        add(f"{networks}/{{network}}/blueprint", self.show_blueprint, schemas.BlueprintAnswer)
        add(f"{networks}/{{network}}", self.show_network, schemas.NetworkAnswer)
        predict = {"responses": _problems(415), "openapi_extra": _PREDICT}
        add(f"{networks}/{{network}}/predict", self.predict, schemas.PredictionsAnswer, ["POST"], **predict)
        add("/health", self.health, schemas.Status)
        add("/ready", self.ready, schemas.Status)
        text = {200: {"description": "For Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}}}
        add("/metrics", self.show_metrics, responses=text, response_class=Response)
        add("/admin/reload", self.reload, schemas.Status, ["POST"], responses=_problems(403))
        return router

    # -- families ------------------------------------------------------------------------------------------------------

    async def list_families(self) -> Response:
        """All families, and what is wrong with those that are not whole."""
        families = self.families
        lines = [
            {"name": name, "available": name in families.current, "reason": families.faults.get(name)}
            for name in families.sources
        ]
        return _json({"families": lines})

    async def show_family(self, family: FamilyName) -> Response:
        """The classes, groups and costs of a family."""
        hosted = self.families.get(family)
        return _json(await self._in_thread(hosted.describe))

    async def show_ranges(
        self, family: FamilyName, group: GroupQuery = None, classes: ClassesQuery = None, budget: BudgetQuery = None
    ) -> Response:
        """Costs of a group's networks, and what of each is feasible within the budgets of the others."""
        hosted, wanted = self.families.get(family), read_group(group, classes)
        ranges = await self._in_thread(feasible_ranges, hosted.family, wanted, read_budgets(budget or ()))
        names = [hosted.family.classes[i] for i in hosted.family.class_indices(wanted)]
        costs = {name: _plain(asdict(each)) for name, each in ranges.items()}
        images = len(hosted.family.validation.of_classes(hosted.family.class_indices(wanted)))
        answer = {"family": hosted.name, "digest": hosted.identities.digest, "classes": names, "costs": costs}
        return _json({**answer, "validation_images": images})

    async def show_curve(
        self, family: FamilyName, group: GroupQuery = None, classes: ClassesQuery = None, cost: str | None = None
    ) -> Response:
        """Accuracy on validation images over a cost, of what the generator hands out for a group; made once."""
        hosted, wanted = self.families.get(family), read_group(group, classes)
        cost = cost or hosted.family.budget_name
        await self._in_thread(
            hosted.family.table, cost, len(hosted.family.class_indices(wanted))
        )  # refuses what there is not
        key = f"{hosted.judged_by}.{digest(wanted, cost)}.curve"
        content = await self.builds.content(key, lambda: hosted.curve(wanted, cost))
        return Response(content.data, media_type=JSON)

    # -- networks ------------------------------------------------------------------------------------------------------

    async def specialize(self, family: FamilyName, question: schemas.Question) -> Response:
        """The networks for one scenario or many: within every budget, without a search."""
        hosted = self.families.get(family)
        many = question.scenarios
        if many is not None and question.model_fields_set != {"scenarios"}:
            raise ConfigError("groups, classes and budgets stand in each of scenarios, not beside them")
        if many is not None and not 0 < len(many) <= self.settings.limits.scenarios:
            raise TooLarge(f"a call has 1 to {self.settings.limits.scenarios:,} scenarios, got {len(many):,}")
        asked = [question] if many is None else many
        scenarios = []
        for i, each in enumerate(asked):
            try:
                scenarios.append((read_group(each.group, each.classes), each.budgets))
            except ConfigError as error:
                raise ConfigError(f"scenario {i + 1}: {error}" if many is not None else str(error)) from None
        if any(each.best_of > 1 for each in asked):
            text = await self._best(hosted, scenarios, [each.best_of for each in asked])
        else:
            text = await hosted.gatherer.ask(scenarios)
        return Response(text if many is None else b'{"networks": [%s]}' % text, media_type=JSON)

    async def _best(self, hosted: Hosted, scenarios: Sequence[tuple[Group, Any]], best_of: Sequence[int]) -> bytes:
        """Each the best of several; one that is asked for by several at once is looked for once."""
        trials, most = sum(n for n in best_of if n > 1), self.settings.limits.trials
        if trials > most:
            raise TooLarge(f"a call tries {most:,} architectures on images at most, best_of adds up to {trials:,}")

        async def one(scenario: tuple[Group, Any], n: int) -> bytes:
            if n == 1:
                return await hosted.gatherer.ask([scenario])
            key = f"{hosted.judged_by}.{digest(*scenario, n)}.best"
            return await self.builds.result(key, lambda: hosted.best(scenario, n))

        texts = await asyncio.gather(*map(one, scenarios, best_of), return_exceptions=True)
        for i, text in enumerate(texts):
            if isinstance(text, SnugnetError) and len(texts) > 1:
                raise type(text)(f"scenario {i + 1}: {text}") from None
            if isinstance(text, BaseException):
                raise text
        return b",".join(text for text in texts if isinstance(text, bytes))

    async def show_blueprint(self, family: FamilyName, network: NetworkId) -> Response:
        """What a network consists of, all that it costs, and the ids of those that it is compared with."""
        hosted = self.families.get(family)
        return _json(await self._in_thread(hosted.blueprint, network, hosted.network(network)))

    async def show_network(self, family: FamilyName, network: NetworkId, images_of: NetworkQuery = None) -> Response:
        """A network that was handed out, with its accuracy on validation images, which is measured once."""
        hosted = self.families.get(family)
        found = hosted.network(network)
        if images_of is not None:
            other = hosted.network(images_of)
            key = f"{hosted.judged_by}.{network}.{images_of}.accuracy"
            content = await self.builds.content(key, lambda: hosted.accuracy_on(found, other))
            text = hosted.describe_network(found, validation_accuracy=json.loads(content.data))
            return Response(text, media_type=JSON)
        content = await self.builds.content(
            f"{hosted.judged_by}.{network}.accuracy", lambda: hosted.accuracy(network, found)
        )
        hosted.remember(network, json.loads(content.data))
        return Response(hosted.describe_network(found), media_type=JSON)

    async def download_onnx(self, family: FamilyName, network: NetworkId, request: Request) -> Response:
        """The network as ONNX; ONNX Runtime ran it, and agrees with torch."""
        return await self.download(family, network, ".onnx", request.headers.get("if-none-match", ""))

    async def download_pt2(self, family: FamilyName, network: NetworkId, request: Request) -> Response:
        """The network as an archive of torch.export."""
        return await self.download(family, network, ".pt2", request.headers.get("if-none-match", ""))

    async def download(self, family: str, network: str, suffix: str, known: str) -> Response:
        """A network's file, unless the one who asks knows it: the tags of ``If-None-Match``."""
        content = await self._file(self.families.get(family), network, suffix)
        tag = f'"{content.checksum[:32]}"'
        reach = "public" if self.settings.token is None else "private"
        headers = {
            "ETag": tag,
            "Cache-Control": f"{reach}, max-age=31536000, immutable",
            "Content-Disposition": f'attachment; filename="{network[:16]}{suffix}"',
        }
        if _matches(known, tag):
            return Response(status_code=304, headers=headers)
        return Response(content.data, headers=headers, media_type=_FILE_TYPES[suffix])

    async def _file(self, hosted: Hosted, network: str, suffix: str) -> Content:
        assert suffix in FORMATS
        found = hosted.network(network)
        return await self.builds.content(f"{__version__}.{network}{suffix}", lambda: hosted.file(found, suffix))

    async def predict(self, family: FamilyName, network: NetworkId, request: Request) -> Response:
        """What a network says about images: the body is one image file; or a form with several; or pixels.

        Pixels are bytes, n x 3 x r x r, RGB, at the family's resolution r.
        """
        hosted = self.families.get(family)
        found = hosted.network(network)
        limits, resolution = self.settings.limits, hosted.family.space.resolution
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == PIXELS:
            images = read_pixels(await request.body(), resolution)
        elif kind == FORM or kind.startswith("image/"):
            files = await self._files(request) if kind == FORM else [await request.body()]
            images = await self._in_thread(read_images, files, resolution, limits.pixels, limits.call_pixels)
        else:
            raise WrongType(
                f"a body is {FORM}, {PIXELS} or of a type image/..., got {shown(kind) if kind else 'no type'}"
            )
        if len(images) > limits.images:
            raise TooLarge(f"a call has {limits.images:,} images at most, got {len(images):,}")
        content = await self._file(hosted, network, ".onnx")
        rows, milliseconds = await self._in_thread(self._runner.run, network, lambda: content.data, found, images)
        self.metrics.images.inc(len(rows))
        best, classes = rows.argmax(axis=1).tolist(), found.classes
        predictions = [
            {"class": classes[place], "probabilities": row}
            for place, row in zip(best, rows.astype(float).round(6).tolist(), strict=True)
        ]
        text = {
            "network": network,
            "classes": classes,
            "predictions": predictions,
            "milliseconds": round(milliseconds, 3),
        }
        return _json(text)

    async def _files(self, request: Request) -> list[bytes]:
        """The files of a form, in memory."""
        most = self.settings.limits.images
        parser = _InMemory(request.headers, request.stream(), max_files=most, max_fields=0)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise DataError(f"the form cannot be read: {error.message}") from None
        files = [await each.read() for _, each in form.multi_items() if not isinstance(each, str)]
        await form.close()
        if not files:
            raise DataError("the form has no image file")
        return files

    # -- the service ---------------------------------------------------------------------------------------------------

    async def health(self) -> Response:
        """Whether the service answers."""
        return _json(self._status("ok"))

    async def ready(self) -> Response:
        """Whether there is a family to ask."""
        if not self.families.current:
            raise Unavailable(f"no family could be loaded: {'; '.join(self.families.faults.values()) or 'loading'}")
        return _json(self._status("ready"))

    async def show_metrics(self) -> Response:
        """What was counted, for Prometheus."""
        return Response(self.metrics.text(), media_type=METRICS_TYPE)

    async def reload(self, request: Request) -> Response:
        """Load all families anew; requests go on with the old ones. Without a token, for this machine alone."""
        if self.settings.token is None and (request.client is None or request.client.host not in _LOOPBACK):
            raise Forbidden("without a token, families are loaded anew from the service's own machine only")
        await asyncio.to_thread(self.families.load)
        if self.settings.workers > 1:  # the first process hands it on to all
            os.kill(os.getppid(), signal.SIGHUP)
        return _json(self._status("loaded"))

    def _status(self, text: str) -> dict[str, Any]:
        return {"status": text, "families": {name: self.families.faults.get(name) for name in self.families.sources}}

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _InMemory(MultiPartParser):
    """No image is written to a disk; the whole body is within its limit."""

    spool_max_size = 2**62


def _json(document: Any) -> Response:
    return Response(json.dumps(document), media_type=JSON)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: plain_number(value) if isinstance(value, float) else value for key, value in values.items()}


def _matches(given: str, tag: str) -> bool:
    """Whether ``If-None-Match`` names a tag."""
    return given.strip() == "*" or tag in [each.strip().removeprefix("W/") for each in given.split(",")]
