"""`driftline compile`: write a use case's pipelines, for this machine or as Kubernetes objects."""

from pathlib import Path

import click

from components.core.settings import load_settings


@click.command("compile")
@click.option("--use-case", "use_case", default="", help="Folder below feature_repo; all of them without it.")
@click.option(
    "--target",
    type=click.Choice(["local", "kubernetes"]),
    default="local",
    show_default=True,
    help="local: KFP's intermediate representation; kubernetes: Pipeline and PipelineVersion objects.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("images.json"),
    show_default=True,
    help="Images by digest, as `make images` writes them; for kubernetes.",
)
@click.option("--namespace", default="kubeflow", show_default=True, help="Namespace of the objects; for kubernetes.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=Path("dist"), show_default=True)
def command(use_case: str, target: str, images: Path, namespace: str, output: Path) -> None:
    """Compile pipelines; equal input gives equal bytes."""
    from components.core.storage import write_text
    from components.core.usecase import list_use_cases
    from pipelines.compiled_files import kubernetes_files, local_files
    from pipelines.image_lock import read_image_lock

    settings = load_settings()
    names = [use_case] if use_case else list_use_cases(settings.feature_repo)
    if target == "local":
        files = [file for name in names for file in local_files(settings, name)]
    else:
        lock = read_image_lock(images)
        files = [f for name in names for f in kubernetes_files(settings, name, images=lock, namespace=namespace)]
    for file in files:
        write_text(output / file.name, file.text)
        click.echo(f"{output / file.name}  {file.identity}")
