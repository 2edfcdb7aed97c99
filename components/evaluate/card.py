"""The model card (Mitchell et al. 2019) as Markdown."""

from components.core.sections import Evaluate, Problem
from components.evaluate.gates import sentence
from components.evaluate.judging import Judgement
from components.evaluate.wording import METRIC_NAMES, number, range_text


def render_card(use_case: str, problem: Problem, config: Evaluate, judgement: Judgement) -> str:
    """Return the model card: what it is, what it is for, how good it is, where it fails, where it comes from."""
    parts = [
        _what(use_case, problem, judgement),
        _metrics(judgement, config),
        _slices(judgement, config),
        _inputs(judgement),
        _limits(judgement, config),
        _origin(use_case, judgement),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(use_case: str, problem: Problem, judgement: Judgement) -> str:
    card = judgement.card
    kind = "the probability of" if problem.task == "classification" else "the value of"
    inputs, row_id = judgement.training_set.inputs, ", ".join(f"`{column}`" for column in problem.id)
    read = [i for i in inputs if i.view]
    views = ", ".join(f"`{view}`" for view in sorted({i.view for i in read})) or "nowhere"
    return f"""# {use_case}, version {card.version}

**{sentence(judgement.verdict, judgement.measurements, version=card.version)}**

## Intended use
Predict {kind} `{problem.label}` for one row of `{problem.table}` ({row_id}), at its \
prediction instant.
Owner, purpose and limits of use are those of the use case `{use_case}` (`use_case.yaml`, `README.md`).
A prediction needs {", ".join(f"`{e}`" for e in problem.entities)} and {len(problem.inputs)} request inputs; the other \
{len(read)} inputs are read from {views}.

## Data
{card.rows:,} rows from {card.first:%Y-%m-%d} to {card.last:%Y-%m-%d}, as known on {card.as_of:%Y-%m-%d %H:%M} UTC. \
Everything from {card.holdout_from:%Y-%m-%d} on was held out."""


def _metrics(judgement: Judgement, config: Evaluate) -> str:
    measured = judgement.measurements
    models = [m for m in (measured.challenger, measured.champion_model, measured.baseline) if m]
    if not models:
        return "## Metrics\nNone: " + "; ".join(measured.defects or ["the holdout has no rows"]) + "."
    lines = [
        "| | " + " | ".join(m.name for m in models) + " |",
        "|---" * (len(models) + 1) + "|",
        *(
            f"| {METRIC_NAMES[metric]} | " + " | ".join(range_text(m.metrics[metric]) for m in models) + " |"
            for metric in models[0].metrics
        ),
    ]
    return (
        f"## Metrics\n{measured.rows:,} rows on {measured.days} days; {config.confidence:.0%} intervals from resampled "
        "days.\n\n" + "\n".join(lines)
    )


def _slices(judgement: Judgement, config: Evaluate) -> str:
    found = judgement.measurements.slices
    if found is None or not found.slices:
        return ""
    name = METRIC_NAMES[judgement.measurements.metric]
    lines = [
        f"| slice | rows | {name} | improvement over the {found.reference} |",
        "|---|---|---|---|",
        *(
            f"| {_plain(f'{s.column} {s.value}')} | {s.rows:,} | {number(s.challenger)} "
            f"| {range_text(s.difference, signed=True)} |"
            for s in found.slices[:10]
        ),
    ]
    return (
        f"## Slices\nThe {min(10, len(found.slices))} weakest of {len(found.slices)}; their intervals hold together "
        f"with {config.confidence:.0%}.\n\n" + "\n".join(lines)
    )


def _inputs(judgement: Judgement) -> str:
    top = judgement.measurements.importances[:10]
    if not top:
        return ""
    name = METRIC_NAMES[judgement.measurements.metric]
    lines = [f"- `{i.name}`: {name} worse by {number(i.drop)} when shuffled" for i in top]
    return "## What it looks at\n" + "\n".join(lines)


def _limits(judgement: Judgement, config: Evaluate) -> str:
    card, measured = judgement.card, judgement.measurements
    lines = [f"- {_plain(r.message)}" for r in judgement.verdict.reasons if not r.passed]
    lines += [f"- {_plain(note)}" for note in (*measured.notes, *card.notes)]
    lines.append(
        f"- Judged on {measured.days} consecutive days: other seasons are extrapolation; monitoring compares them."
    )
    lines += [f"- {f.measure} between groups of `{f.column}`: {range_text(f.difference)}" for f in measured.fairness]
    if measured.slices and measured.slices.left_out:
        lines.append(
            f"- {measured.slices.left_out} slice values with fewer than {config.min_slice_rows:,} rows were not judged."
        )
    return "## Limits\n" + "\n".join(lines)


def _origin(use_case: str, judgement: Judgement) -> str:
    card, champion = judgement.card, judgement.measurements.champion
    trainer = _plain(", ".join(f"{k} {v}" for k, v in card.trainer.items()))
    return f"""## Origin
| | |
|---|---|
| model | `{card.model}` |
| training set | `{card.training_set}` |
| snapshot | `{card.snapshot}` |
| feature definitions | `{card.registry}` |
| code | `{card.code or "outside a checkout"}` |
| trainer | {trainer}, seed {card.seed}, {card.device} |
| MLflow run | `{card.mlflow_run}` |
| compared with | {f"champion version {champion.version}" if champion else "no champion"} |
| licence | code: Apache-2.0; data: as declared in the README of `{use_case}` |"""


def _plain(text: str) -> str:
    """Keep underscores outside of code what they are: KFP's page takes two of them for emphasis, also within words."""
    return "`".join(part if i % 2 else part.replace("_", "\\_") for i, part in enumerate(text.split("`")))
