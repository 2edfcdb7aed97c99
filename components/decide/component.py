"""KFP step `decide`: concludes from a watched window, and requests a retraining when one is justified."""

from kfp.dsl import Artifact, Input, component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def decide(use_case: str, config: dict, evidence: Input[Artifact]) -> str:
    """Record one decision about a window; return its id.

    Args:
        use_case: Name of the use case and of its model.
        config: Section `monitor`.
        evidence: What the monitor measured.
    """
    from pathlib import Path

    from components.core.sections import Monitor
    from components.core.settings import load_settings
    from components.decide.step import decide as decide_window

    return decide_window(load_settings(), use_case, Monitor.model_validate(config), evidence=Path(evidence.path)).id
