"""KFP step `retrain`: starts the retraining that was decided."""

from kfp.dsl import component

from components.core.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def retrain(use_case: str, decision: str, training: str):
    """Start what is requested for a model, and what was stranded; each attempt has one run, however often it is asked.

    Args:
        use_case: Name of the use case and of its model.
        decision: Id of the decision of this run.
        training: Name of the version of the training pipeline that is started.
    """
    from components.core.settings import load_settings
    from components.retrain.retrain import retrain as start_retraining

    start_retraining(load_settings(), use_case, decision=decision, training=training)
