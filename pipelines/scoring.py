"""The scoring pipeline: the champion predicts a period, every row as of its own instant.

    claim → ingest → scoring-set → score

Days that were scored before are kept, so a repeated run, or one whose period overlaps another's, changes nothing.
"""

from typing import Any

from kfp import dsl

from components.claim.component import claim as claim_step
from components.core.usecase import UseCase
from components.features.scoring_component import scoring_set as scoring_set_step
from components.ingest.component import ingest as ingest_step
from components.score.component import score as score_step
from pipelines.wiring import own_group, pipeline_name, place, run_limits, section


def build(use_case: UseCase, *, sql: dict[str, str], registry: str) -> Any:
    """Wire the scoring pipeline of a use case.

    An empty `as_of` is now; empty `first` and `last` are the day before, so that a schedule needs no parameters. SQL
    and the digest of the feature definitions are constants of the pipeline.
    """
    case = use_case.name
    problem_spec = section(use_case.problem)

    def placed(task: dsl.PipelineTask) -> dsl.PipelineTask:
        return place(task, use_case, "scoring")

    @dsl.pipeline(
        name=pipeline_name(case, "scoring"),
        description=f"{use_case.title}: score a period",
        pipeline_config=run_limits(),
    )
    def scoring(
        as_of: str = "",
        first: str = "",
        last: str = "",
        data: dict = section(use_case.data),
        features: dict = section(use_case.features),
    ):
        """Let the champion predict every row of a period.

        Args:
            as_of: Instant as of which data is read, ISO 8601; empty means now.
            first: First UTC day that is scored, ISO 8601; empty means the day before `last`.
            last: UTC day at which the period ends, itself excluded; empty means the day of `as_of`.
            data: Where the data comes from, and its tables.
            features: The feature service, and what serving does without a value.
        """
        with own_group(as_of):
            won = placed(claim_step(pipeline="scoring", use_case=case))
            with dsl.If(won.output == True, name="claimed"):  # noqa: E712 - KFP builds a condition from ==
                snapshot = placed(
                    ingest_step(use_case=case, as_of=as_of, problem=problem_spec, data=data, sql=sql)
                ).outputs["snapshot"]
                rows = placed(
                    scoring_set_step(
                        use_case=case,
                        first=first,
                        last=last,
                        problem=problem_spec,
                        config=features,
                        registry=registry,
                        snapshot=snapshot,
                    )
                ).outputs["scoring_set"]
                placed(score_step(use_case=case, scoring_set=rows))

    return scoring
