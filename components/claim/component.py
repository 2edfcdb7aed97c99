"""KFP step `claim`: decides whether this Workflow executes the run."""

from kfp.dsl import component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def claim(pipeline: str, use_case: str) -> bool:
    """Claim the run; of several Workflows with one run id, exactly one gets `True`.

    Args:
        pipeline: Name of the pipeline.
        use_case: Name of the use case.
    """
    from components.claim.claim import claim as claim_run
    from components.core.settings import load_settings

    return claim_run(load_settings(), pipeline, use_case)
