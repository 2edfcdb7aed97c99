"""What is to be committed for a promoted model."""

from pydantic import ValidationError

from components.core.bundle import ModelCard
from components.core.errors import ConfigError
from components.core.git import check_address
from components.core.ledger.champions import Candidate
from components.core.ledger.releases import KeptRelease
from components.core.release import Release, ReleasedBento, ServingImage
from components.core.release_branch import own_environment
from components.core.serving import bento_tag
from components.core.settings import Settings
from components.core.verdict import Verdict


def pinned_image(settings: Settings, serving_image: str) -> ServingImage | None:
    """Return the image of a release, None where promotions are not committed.

    Raises ConfigError, before anything is promoted, for an image without a digest and for settings of the repository
    that cannot be used.
    """
    if not settings.git_url:
        return None
    check_address(settings)
    own_environment(settings)
    repository, _, digest = serving_image.partition("@")
    try:
        return ServingImage(repository=repository, digest=digest)
    except ValidationError as error:
        raise ConfigError(
            "a promotion is committed with the image that serves it, and this pipeline names none by digest",
            measured=repr(serving_image),
            allowed="REPOSITORY@sha256:<64 hex digits>",
            next_step="run `make images REGISTRY=HOST/PREFIX`, then compile again: images.json must hold `serve`",
        ) from error


def describe_release(candidate: Candidate, card: ModelCard, approval: Verdict, image: ServingImage) -> KeptRelease:
    """Return the release of a candidate, with what a reviewer reads about it."""
    release = Release(
        use_case=candidate.model,
        model_version=candidate.version,
        model=candidate.digest,
        bento=ReleasedBento(
            tag=bento_tag(candidate.model, candidate.version, candidate.digest),
            digest=candidate.bento_digest,
            uri=candidate.bento_uri,
        ),
        image=image,
        verdict=candidate.verdict_digest,
        run_id=candidate.run_id,
    )
    return KeptRelease(release=release, verdict=approval.model_dump_json(), card=card.model_dump_json())
