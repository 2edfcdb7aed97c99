"""What each step asks a cluster for: defaults that fit a small node, and what a use case may ask instead."""

import difflib

from components.core.errors import ConfigError
from components.core.sections import Resources
from components.core.usecase import UseCase

HOUR = 3600

# Memory is request and limit: about twice what the step was seen to use with 300,000 rows. Steps that may be repeated
# are, since pods are evicted and stores restart; a step that reads a verdict is not, since a refusal stays one.
DEFAULTS = {
    "claim": Resources(cpu="100m", memory="512Mi", retries=2, timeout_seconds=HOUR // 6),
    "ingest": Resources(cpu="250m", memory="2Gi", retries=2, timeout_seconds=HOUR),
    "validate": Resources(cpu="250m", memory="2Gi", retries=1, timeout_seconds=HOUR),
    "features": Resources(cpu="500m", memory="3Gi", timeout_seconds=2 * HOUR),
    "tune": Resources(cpu="1", memory="2Gi", retries=2, timeout_seconds=4 * HOUR),
    "train": Resources(cpu="1", memory="2Gi", retries=2, timeout_seconds=4 * HOUR),
    "evaluate": Resources(cpu="500m", memory="2Gi", retries=1, timeout_seconds=HOUR),
    "package": Resources(cpu="500m", memory="4Gi", timeout_seconds=HOUR),
    "promote": Resources(cpu="250m", memory="1Gi", timeout_seconds=HOUR // 2),
    "scoring-set": Resources(cpu="500m", memory="3Gi", retries=1, timeout_seconds=2 * HOUR),
    "score": Resources(cpu="500m", memory="2Gi", retries=2, timeout_seconds=2 * HOUR),
    "monitor": Resources(cpu="500m", memory="3Gi", retries=1, timeout_seconds=HOUR),
    "decide": Resources(cpu="100m", memory="512Mi", retries=2, timeout_seconds=HOUR // 6),
    # An attempt has one run, however often it is asked for.
    "retrain": Resources(cpu="100m", memory="512Mi", retries=2, timeout_seconds=HOUR // 6),
}

NEVER_REPEATED = ("features", "package", "promote")
GPU_STEPS = ("train", "tune")


def step_resources(use_case: UseCase, step: str) -> Resources:
    """Return the defaults of a step, with what the use case says of it on top."""
    own = use_case.resources.get(step, Resources())
    return DEFAULTS[step].model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


def check_resources(use_case: UseCase) -> None:
    """Raise ConfigError for a step that does not exist, and for what a step could not use."""
    for step, wanted in use_case.resources.items():
        where = f"resources.{step}"
        if step not in DEFAULTS:
            near = difflib.get_close_matches(step, DEFAULTS, n=1)
            raise ConfigError(
                f"{where}: no step of this name",
                measured=step,
                allowed=", ".join(DEFAULTS),
                next_step=f"did you mean {near[0]!r}?" if near else "name a step",
            )
        if step in NEVER_REPEATED and wanted.retries:
            raise ConfigError(
                f"{where}.retries: this step obeys a verdict, and a refusal is not repeated",
                measured=wanted.retries,
                allowed=0,
                next_step="take the key out; `driftline runs retry` repeats a run that failed otherwise",
            )
        if wanted.gpu and step not in GPU_STEPS:
            raise ConfigError(
                f"{where}.gpu: this step does not use one",
                measured=f"{wanted.gpu.count} x {wanted.gpu.type}",
                allowed="a GPU for " + " or ".join(GPU_STEPS),
                next_step="take the key out",
            )
        if wanted.gpu and use_case.train.device != "cuda":
            raise ConfigError(
                f"{where}.gpu: training would leave it idle",
                measured=f"train.device: {use_case.train.device}",
                allowed="train.device: cuda",
                next_step="set train.device to cuda, or take the GPU out",
            )
