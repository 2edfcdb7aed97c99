"""`driftline images`: build the container images and pin them by digest."""

import time
from pathlib import Path

import click

TARGETS = ("cpu", "serve", "gpu")


@click.command("images")
@click.argument("targets", nargs=-1, type=click.Choice(TARGETS))
@click.option(
    "--registry", default="", metavar="HOST/PREFIX", help="Push there; without it images stay on this machine."
)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("images.json"), show_default=True
)
@click.option(
    "--sign",
    "key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Private key with which cosign signs what was pushed and attests what is in it.",
)
def command(targets: tuple[str, ...], registry: str, output: Path, key: Path | None) -> None:
    """Build images (cpu and serve unless named) and write what is in them; after a push, write their digests for
    `driftline compile`."""
    from pipelines.image_signing import require_cosign, sign_image
    from pipelines.images import build_images, write_lock
    from pipelines.sbom import write_bill

    if key and not registry:
        raise click.UsageError("--sign needs --registry: a signature lies beside the image that was pushed")
    if key:
        require_cosign(key)
    started = time.monotonic()
    images = build_images(
        Path.cwd(),
        targets or ("cpu", "serve"),  # type: ignore[arg-type]
        registry=registry,
        announce=lambda line: click.echo(f"{line} ...", err=True),
    )
    for image in images:
        click.echo(f"{image.target:<6} {image.size_bytes / 1e6:6.0f} MB  {image.digest or image.name}")
        bill = write_bill(output, image.target, image.name, image.identity, image.digest)
        click.echo(f"what is in it: {bill}", err=True)
        if key:
            sign_image(image.digest, key, bill)
    click.echo(f"{time.monotonic() - started:.0f} s", err=True)
    if registry:
        write_lock(output, images)
        click.echo(f"digests in {output}", err=True)
    else:
        click.echo("not pushed, so there are no digests to pin: give --registry for a cluster", err=True)
