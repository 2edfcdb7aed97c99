"""The Bento service of one model version; its schema comes from the serving description.

Four settings are worth a factor of seven in requests per core (BentoML 1.4.39, measured): an async API, a
pydantic model as output, no access log, and no tracing spans. Metrics and health stay on.
"""

import asyncio
import functools
import gc
import logging
import time
from pathlib import Path
from typing import Any

import bentoml
from pydantic import ValidationError
from starlette.responses import JSONResponse

from components.core.errors import FeatureError
from components.core.inference_log import BATCH, LOOKUP, READY
from components.core.object_store import publish
from components.core.serving import ServingSpec, read_spec
from components.core.settings import load_settings
from components.core.training_set import REGISTRY
from components.serve.inference_writer import InferenceWriter
from components.serve.ingress import REQUEST_ID, Ingress
from components.serve.metrics import ServingMetrics
from components.serve.online import OnlineReader, Reading
from components.serve.predictor import Scorer
from components.serve.requests import (
    BatchPrediction,
    OnlinePrediction,
    Prediction,
    online_request,
    ready_batch,
    ready_row,
)
from components.serve.shadow import Shadow

log = logging.getLogger("driftline.serve")


def create_service(folder: Path) -> Any:
    """Return the BentoML service for the model files in `folder`; they are loaded when it starts."""
    spec = read_spec(folder)
    OnlineRequest = online_request(spec)  # noqa: N806
    ReadyRow = ready_row(spec)  # noqa: N806
    ReadyBatch = ready_batch(spec, ReadyRow)  # noqa: N806

    class Service:
        __doc__ = f"{spec.use_case}, version {spec.version}, model {spec.model[:12]}."

        def __init__(self) -> None:
            logging.getLogger("bentoml._internal.server.http_app").addFilter(_not_the_callers_mistake)
            self.scorer = Scorer(folder)
            settings = load_settings()
            # The container that names a Bento has verified it against the key before it started this server.
            verified = bool(settings.bento and settings.model_verifying_key)
            self.metrics = ServingMetrics(spec, signature_verified=verified)
            self.online = None
            if spec.views:
                self.online = OnlineReader(folder / REGISTRY, spec, settings.online_store_url)
            self.log = None
            if settings.inference_log:
                share = functools.partial(publish, settings) if settings.object_store_url else None
                self.log = InferenceWriter(settings.inference_log, spec, self.metrics.count_logged, share=share)
            self.shadow = Shadow(settings.shadow_url, self.metrics.count_copy) if settings.shadow_url else None
            # What start-up made stays: full collections, which waiting rows make more frequent, need not look at it.
            gc.collect()
            gc.freeze()

        @bentoml.on_shutdown  # type: ignore[untyped-decorator]
        def close(self) -> None:
            if self.shadow:
                self.shadow.close()
            if self.log:
                self.log.close()

        async def __is_ready__(self) -> bool:
            # The scorer has answered once, or the constructor would have raised; it must still do so.
            return len(self.scorer.score([{}])) == 1

        @bentoml.api(output_spec=OnlinePrediction)  # type: ignore[untyped-decorator]
        async def predict(self, request: OnlineRequest, /) -> OnlinePrediction | JSONResponse:  # type: ignore[valid-type]
            """Predict from entity keys and request inputs; features come from the online store."""
            values = dict(vars(request))
            as_of = values.pop("as_of")
            instant = time.time() if as_of is None else as_of.timestamp()
            started = time.perf_counter()
            try:
                reading = await _read(self.online, values, instant)
            except FeatureError as error:
                log.warning("%s", error)
                return _error(503, error=error.what, request_id=REQUEST_ID.get())
            finally:
                self.metrics.observe_read(time.perf_counter() - started)
            refusal = _refusal(spec, reading)
            self.metrics.count_features(reading.stale, reading.missing)
            if refusal is not None:
                return _error(422, request_id=REQUEST_ID.get(), **refusal)
            served = [values | reading.values]
            predictions = self.scorer.score(served)
            self.metrics.observe(predictions)
            answers = predictions.tolist()
            if self.log:
                self.log.append(
                    LOOKUP,
                    REQUEST_ID.get(),
                    served,
                    answers,
                    as_of=instant,
                    stale=reading.stale,
                    missing=reading.missing,
                )
            if self.shadow:
                self.shadow.copy(LOOKUP, REQUEST_ID.get(), values, as_of=instant)
            return OnlinePrediction.model_construct(
                prediction=answers[0],
                model_version=spec.version,
                model=spec.model,
                request_id=REQUEST_ID.get(),
                feature_ages_seconds=reading.ages,
                stale=reading.stale,
                missing=reading.missing,
            )

        @bentoml.api  # type: ignore[untyped-decorator]
        async def predict_ready(self, row: ReadyRow, /) -> Prediction:  # type: ignore[valid-type]
            """Predict one row that brings every model input."""
            served = [vars(row)]
            predictions = self.scorer.score(served)
            self.metrics.observe(predictions)
            answers = predictions.tolist()
            if self.log:
                self.log.append(READY, REQUEST_ID.get(), served, answers)
            if self.shadow:
                self.shadow.copy(READY, REQUEST_ID.get(), served[0])
            return Prediction.model_construct(
                prediction=answers[0],
                model_version=spec.version,
                model=spec.model,
                request_id=REQUEST_ID.get(),
            )

        @bentoml.api  # type: ignore[untyped-decorator]
        async def predict_batch(self, batch: ReadyBatch, /) -> BatchPrediction:  # type: ignore[valid-type]
            """Predict many rows that bring every model input."""
            served = [vars(row) for row in vars(batch)["rows"]]
            predictions = self.scorer.score(served)
            self.metrics.observe(predictions)
            answers = predictions.tolist()
            if self.log:
                self.log.append(BATCH, REQUEST_ID.get(), served, answers)
            if self.shadow:
                self.shadow.copy(BATCH, REQUEST_ID.get(), {"rows": served}, rows=len(served))
            return BatchPrediction.model_construct(
                predictions=answers,
                model_version=spec.version,
                model=spec.model,
                request_id=REQUEST_ID.get(),
            )

    service = bentoml.service(
        name=spec.use_case,
        workers=spec.workers,
        traffic={"timeout": spec.timeout_seconds},
        logging={"access": {"enabled": False}},
        tracing={"excluded_urls": ".*"},
    )(Service)
    service.add_asgi_middleware(Ingress, max_request_bytes=spec.max_request_bytes)
    return service


async def _read(online: OnlineReader | None, entities: dict[str, Any], as_of: float) -> Reading:
    if online is None:
        return Reading()
    if online.local:
        return online.read(entities, as_of)
    # A slow network must hold this request only.
    return await asyncio.to_thread(online.read, entities, as_of)


def _refusal(spec: ServingSpec, reading: Reading) -> dict[str, Any] | None:
    """Return what the policies object to, or None."""
    views = {column.name: column.view for column in spec.inputs}
    for problem, policy, features in (
        ("stale", spec.stale, reading.stale),
        ("missing", spec.missing, reading.missing),
    ):
        if policy == "reject" and features:
            ages = {feature: reading.ages[views[feature]] for feature in features}
            listed = ", ".join(f"{name} ({'no row' if age is None else f'{age:.0f} s'})" for name, age in ages.items())
            return {"error": f"{problem} features: {listed}", problem: ages}
    return None


def _error(status: int, **content: Any) -> JSONResponse:
    return JSONResponse(content, status_code=status)


def _not_the_callers_mistake(record: logging.LogRecord) -> bool:
    """Keep rejected input out of the log: it would be a traceback per bad request; /metrics counts them."""
    return not (record.exc_info and record.exc_info[0] is not None and issubclass(record.exc_info[0], ValidationError))
