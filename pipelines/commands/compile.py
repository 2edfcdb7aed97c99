"""`driftline compile`: write the intermediate representation of a use case's pipelines."""

from pathlib import Path

import click

from components.core.settings import load_settings
from pipelines.commands.options import use_case_option


@click.command("compile")
@use_case_option
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=Path("dist"), show_default=True)
def command(use_case: str, output: Path) -> None:
    """Compile a use case's pipelines; equal input gives equal bytes."""
    from pipelines.catalog import read_case
    from pipelines.compile import PIPELINES, compile_pipeline, ir_digest, write_ir
    from pipelines.definitions import applied_definitions

    settings = load_settings()
    case = read_case(settings.feature_repo, use_case)
    registry = applied_definitions(settings, use_case)
    for pipeline in PIPELINES:
        ir = compile_pipeline(case, pipeline, registry)
        click.echo(f"{write_ir(output, f'{use_case}-{pipeline}', ir)}  sha256:{ir_digest(ir)}")
