"""The training pipeline: from raw data to a probed, promoted model.

    claim → ingest → validate → features → (tune) → train → evaluate → package → promote

A judging step (validate, evaluate) always finishes; the step after it reads the verdict and refuses. The one branch
is the claim: of two Workflows with one run id, the second ends quietly.
"""

from typing import Any

from kfp import dsl

from components.claim.component import claim as claim_step
from components.core.usecase import UseCase
from components.evaluate.component import evaluate as evaluate_step
from components.features.component import features as features_step
from components.ingest.component import ingest as ingest_step
from components.package.component import package as package_step
from components.promote.component import promote as promote_step
from components.train.component import train as train_step
from components.train.tune_component import tune as tune_step
from components.validate.component import validate as validate_step
from pipelines.wiring import own_group, pipeline_name, place, run_limits, section


def build(
    use_case: UseCase, *, sql: dict[str, str], suite: dict[str, Any], registry: str, serving_image: str = ""
) -> Any:
    """Wire the training pipeline of a use case.

    The sections become parameters with defaults, so that the run form shows and overrides them. SQL, suite, the digest
    of the feature definitions and the image that serves what is promoted are constants of the pipeline.
    """
    case = use_case.name
    problem_spec = section(use_case.problem)
    tune_section = section(use_case.tune)

    def placed(task: dsl.PipelineTask) -> dsl.PipelineTask:
        return place(task, use_case, "training")

    @dsl.pipeline(
        name=pipeline_name(case, "training"),
        description=f"{use_case.title}: train, gate, package, promote",
        pipeline_config=run_limits(),
    )
    def training(
        as_of: str = use_case.bootstrap_as_of,
        data: dict = section(use_case.data),
        expectations: dict = section(use_case.expectations),
        features: dict = section(use_case.features),
        train: dict = section(use_case.train),
        evaluate: dict = section(use_case.evaluate),
        package: dict = section(use_case.package),
    ):
        """Train a challenger, judge it, and make it the champion if it is better.

        Args:
            as_of: Instant as of which data is read, ISO 8601; empty means now.
            data: Where the data comes from, and its tables.
            expectations: How failing rows are reported.
            features: The feature service, and what serving does without a value.
            train: The trainer with its parameters, and how the rows are split by time.
            evaluate: The metric, and the bars that a challenger must pass.
            package: Limits that the packaged model must keep as a server.
        """
        with own_group(as_of):
            won = placed(claim_step(pipeline="training", use_case=case))
            with dsl.If(won.output == True, name="claimed"):  # noqa: E712 - KFP builds a condition from ==
                snapshot = placed(
                    ingest_step(use_case=case, as_of=as_of, problem=problem_spec, data=data, sql=sql)
                ).outputs["snapshot"]
                checked = placed(validate_step(use_case=case, snapshot=snapshot, suite=suite, config=expectations))
                training_set = placed(
                    features_step(
                        use_case=case,
                        as_of=as_of,
                        problem=problem_spec,
                        config=features,
                        registry=registry,
                        snapshot=snapshot,
                        verdict=checked.outputs["verdict"],
                    )
                ).outputs["training_set"]
                settings = train
                if use_case.tune.enabled:
                    settings = placed(
                        tune_step(
                            use_case=case,
                            problem=problem_spec,
                            train=train,
                            config=tune_section,
                            training_set=training_set,
                        )
                    ).output
                model = placed(
                    train_step(use_case=case, problem=problem_spec, config=settings, training_set=training_set)
                ).outputs["model"]
                judged = placed(
                    evaluate_step(
                        use_case=case, problem=problem_spec, config=evaluate, model=model, training_set=training_set
                    )
                )
                bento = placed(
                    package_step(
                        use_case=case,
                        problem=problem_spec,
                        config=package,
                        model=model,
                        training_set=training_set,
                        verdict=judged.outputs["verdict"],
                    )
                ).outputs["bento"]
                placed(
                    promote_step(
                        use_case=case,
                        serving_image=serving_image,
                        bento=bento,
                        model=model,
                        verdict=judged.outputs["verdict"],
                    )
                )

    return training
