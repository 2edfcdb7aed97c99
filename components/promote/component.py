"""KFP step `promote`: makes an approved model the champion, by compare-and-swap."""

from kfp.dsl import Artifact, Input, Model, component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def promote(
    use_case: str, serving_image: str, bento: Input[Artifact], model: Input[Model], verdict: Input[Artifact]
) -> str:
    """Make an approved model the champion; `promoted`, or `superseded` when another one was first.

    Args:
        use_case: Name of the use case and of its model.
        serving_image: Image that serves the model, by digest; needed where promotions are committed to Git.
        bento: The probed archive.
        model: The bundle that the gate judged.
        verdict: The decision of `evaluate`.
    """
    from pathlib import Path

    from components.core.settings import load_settings
    from components.promote.promote import promote as promote_model

    return promote_model(
        load_settings(),
        use_case,
        serving_image=serving_image,
        bento=Path(bento.path),
        model=Path(model.path),
        verdict=Path(verdict.path),
    )
