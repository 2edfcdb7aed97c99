"""The monitoring pipeline: from a window of predictions to one decision.

    claim → ingest → monitor → decide → retrain

`ingest` brings the labels that matured. The decision is a row of the ledger. On a cluster the last step starts what it
requests; on a laptop whoever ran this pipeline does (`pipelines.dispatch`).
"""

from typing import Any

from kfp import dsl

from components.claim.component import claim as claim_step
from components.core.usecase import UseCase
from components.decide.component import decide as decide_step
from components.ingest.component import ingest as ingest_step
from components.monitor.component import monitor as monitor_step
from components.retrain.component import retrain as retrain_step
from pipelines.wiring import own_group, pipeline_name, place, run_limits, section


def build(use_case: UseCase, *, sql: dict[str, str], training: str) -> Any:
    """Wire the monitoring pipeline of a use case; `as_of` chooses the window: the newest one whose labels are known.

    `training` is the version of the training pipeline that a retraining runs on a cluster; empty: there is no cluster.
    """
    case = use_case.name
    problem_spec = section(use_case.problem)

    def placed(task: dsl.PipelineTask) -> dsl.PipelineTask:
        return place(task, use_case, "monitoring")

    @dsl.pipeline(
        name=pipeline_name(case, "monitoring"),
        description=f"{use_case.title}: watch production, decide on a retraining",
        pipeline_config=run_limits(),
    )
    def monitoring(
        as_of: str = "",
        data: dict = section(use_case.data),
        monitor: dict = section(use_case.monitor),
        evaluate: dict = section(use_case.evaluate),
    ):
        """Judge the newest finished window, and start a retraining if it is justified.

        Args:
            as_of: Instant that chooses the window, ISO 8601; empty means now.
            data: Where the labels come from, and their tables.
            monitor: The policy, its windows and limits.
            evaluate: The metric by which performance is told.
        """
        with own_group(as_of):
            won = placed(claim_step(pipeline="monitoring", use_case=case))
            with dsl.If(won.output == True, name="claimed"):  # noqa: E712 - KFP builds a condition from ==
                snapshot = placed(
                    ingest_step(use_case=case, as_of=as_of, problem=problem_spec, data=data, sql=sql)
                ).outputs["snapshot"]
                watched = placed(
                    monitor_step(
                        use_case=case,
                        as_of=as_of,
                        problem=problem_spec,
                        config=monitor,
                        evaluate=evaluate,
                        snapshot=snapshot,
                    )
                )
                decided = placed(decide_step(use_case=case, config=monitor, evidence=watched.outputs["evidence"]))
                placed(retrain_step(use_case=case, decision=decided.output, training=training))

    return monitoring
