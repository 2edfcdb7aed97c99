"""Files of the infrastructure tree that people write, and the lock that `driftline infra lock` writes."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

IMAGE = r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
PLACEHOLDERS = ("{repository}", "{tag}", "{digest}", "{hex}")

Environment = Literal["local", "staging", "prod"]
Image = Annotated[str, Field(pattern=IMAGE)]
"""Registry, repository and tag, such as `quay.io/argoproj/argoexec:v4.0.5`."""
Digest = Annotated[str, Field(pattern=DIGEST)]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PinnedImage(_File):
    """An image of an add-on and the values of its chart that name it by digest."""

    image: Image | None = None
    built: Literal["cpu", "gpu", "serve"] | None = None
    """An image of `images.json` instead of one of a registry."""
    values: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$")], str]
    """Path of a value to its text; {repository}, {tag}, {digest} and {hex} are filled in."""

    @model_validator(mode="after")
    def _names_a_digest(self) -> "PinnedImage":
        if (self.image is None) == (self.built is None):
            raise ValueError("give `image` or `built`")
        if not any("{digest}" in text or "{hex}" in text for text in self.values.values()):
            raise ValueError("no value holds {digest} or {hex}")
        if self.built and any("{tag}" in text for text in self.values.values()):
            raise ValueError("an image that is built has no {tag}")
        return self


class ChartSource(_File):
    """A chart of ours (`path`) or of a repository."""

    path: Annotated[str, Field(pattern=r"^charts/[a-z-]+$")] | None = None
    repository: Annotated[str, Field(pattern=r"^(https|oci)://[^\s?#]+[^/\s?#]$")] | None = None
    chart: str | None = None
    version: Annotated[str, Field(pattern=r"^v?[0-9]+\.[0-9]+\.[0-9]+$")] | None = None
    """Exact; a range would be another chart tomorrow."""

    @model_validator(mode="after")
    def _one_source(self) -> "ChartSource":
        theirs = (self.repository, self.chart, self.version)
        if self.path and any(theirs):
            raise ValueError("a chart of ours has a `path` and nothing else")
        if not self.path and not all(theirs):
            raise ValueError("give `path`, or `repository`, `chart` and `version`")
        return self


class Addon(_File):
    """`infra/addons/<name>/app.yaml`."""

    tier: Literal["0-crds", "1-operators", "2-data", "3-platform", "4-observability"]
    namespace: str
    source: ChartSource
    images: list[PinnedImage] = []


class HiddenImage(_File):
    """An image that a manifest names where kustomize's `images` does not look."""

    image: Image
    deployment: str
    container: str
    env: str | None = None
    argument: str | None = None
    """The flag before the image."""
    position: int | None = None
    """Of the image among the container's `args`."""


class KfpImages(_File):
    """`infra/kfp/images.yaml`."""

    images: list[Image]
    hidden: list[HiddenImage]

    def all(self) -> list[str]:
        return [*self.images, *(hidden.image for hidden in self.hidden)]


class _Switch(_File):
    elements: list[dict[str, str]]


class ClusterSpec(_File):
    environment: Environment
    repository: Annotated[str, Field(pattern=r"^(https|ssh|git|http)://\S+$|^[^@\s]+@[^:\s]+:\S+$")]
    revision: str
    poll_seconds: Annotated[int, Field(ge=5, alias="pollSeconds")]
    kfp: _Switch
    addons: _Switch


class LockedImage(_File):
    digest: Digest
    source: Literal["registry", "published"] = "registry"
    """Asked of its registry, or read in public sources that pin this very tag; `lock` asks for the latter again."""


class LockedChart(_File):
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the archive; of the manifest where the repository is an OCI registry."""


class Lock(_File):
    """`infra/lock.yaml`."""

    images: dict[Image, LockedImage] = {}
    charts: dict[str, LockedChart] = {}
    """`REPOSITORY/CHART:VERSION` to its content."""
    built: dict[str, Annotated[str, Field(pattern=r"^[^\s@]+@sha256:[0-9a-f]{64}$")]] = {}
    """What `make images` pushed: `cpu`, `gpu`, `serve`."""


def chart_key(source: ChartSource) -> str:
    return f"{source.repository}/{source.chart}:{source.version}"


def split_image(image: str) -> tuple[str, str]:
    """Return repository and tag."""
    match = re.match(IMAGE, image)
    if match is None:
        raise ValueError(f"{image!r} is not REGISTRY/REPOSITORY:TAG")
    repository, _, tag = image.rpartition(":")
    return repository, tag
