"""What the monitor will compare production with: it travels inside the Bento, so it moves with the model version."""

import shutil
from pathlib import Path

from pydantic import ValidationError

from components.core.errors import DataError
from components.core.profile import HOLDOUT, PROFILE, REFERENCE, HoldoutPerformance, read_profile
from components.core.storage import write_text
from components.core.verdict import Verdict


def copy_reference(bundle: Path, model: Path, *, digest: str) -> None:
    """Copy the reference profile and its sample from a bundle into a Bento's model folder.

    Raises DataError when the bundle has none, or that of another model.
    """
    missing = [name for name in (PROFILE, REFERENCE) if not (bundle / name).is_file()]
    if missing:
        raise DataError(
            "the bundle has no reference profile, so nobody could watch its model",
            measured=f"without {', '.join(missing)}",
            allowed=f"{PROFILE} and {REFERENCE}",
            next_step="train again: bundles of earlier releases have none",
        )
    described = read_profile(bundle).model
    if described != digest:
        raise DataError("the reference profile belongs to another model", measured=described[:12], allowed=digest[:12])
    for name in (PROFILE, REFERENCE):
        shutil.copyfile(bundle / name, model / name)


def holdout_performance(verdict: Verdict) -> HoldoutPerformance:
    """Return what the gate measured of the model that it approved. Raises DataError when the verdict does not say."""
    measured = verdict.evidence.get("measurements") or {}
    challenger = measured.get("challenger") or {}
    found = {"rows": measured.get("rows"), "days": measured.get("days"), "metrics": challenger.get("metrics")}
    try:
        return HoldoutPerformance.model_validate(found)
    except ValidationError as error:
        raise DataError(
            "the verdict does not say how the model performed on its holdout",
            measured=", ".join(str(problem["loc"][0]) for problem in error.errors()),
            allowed="measurements of the challenger, with rows, days and metrics",
            next_step="run the evaluate step again",
        ) from error


def write_holdout(model: Path, performance: HoldoutPerformance) -> None:
    """Write `holdout.json` into a Bento's model folder."""
    write_text(model / HOLDOUT, performance.model_dump_json(indent=2))
