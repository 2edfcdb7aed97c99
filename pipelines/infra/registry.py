"""Asking registries what a tag stands for: the distribution API of images, and Helm's repositories of charts.

Only names and digests travel: no layer is fetched. Source: OCI Distribution Specification 1.1, "Pulling manifests";
token authentication as the registries of Docker have it.
"""

import hashlib
import json
import re
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
import yaml

from components.core.errors import RegistryFailed, RegistryUnreachable
from pipelines.infra.model import DIGEST, ChartSource, split_image

MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
MAX_CHART_BYTES = 20_000_000
MAX_INDEX_BYTES = 100_000_000
OK, UNAUTHORIZED, NOT_FOUND = 200, 401, 404


def image_digest(image: str) -> str:
    """Return `sha256:...` of what a tag stands for: the index where an image is for several architectures.

    `image` is `REGISTRY/REPOSITORY:TAG`. Raises RegistryUnreachable when nobody answers and RegistryFailed when there
    is no such tag, or the answer's digest is not that of its content.
    """
    repository, tag = split_image(image)
    registry, _, path = repository.partition("/")
    return _manifest_digest(registry, path, tag)


def chart_sha256(source: ChartSource) -> str:
    """Return the SHA-256 of a chart: of its archive, or of its manifest in an OCI registry.

    An archive must have the digest that its repository's index names. Raises as `image_digest`.
    """
    repository, chart, version = str(source.repository), str(source.chart), str(source.version)
    if repository.startswith("oci://"):
        registry, _, path = repository.removeprefix("oci://").partition("/")
        return _manifest_digest(registry, f"{path}/{chart}", version).removeprefix("sha256:")
    index = _yaml(_body(_get(f"{repository}/index.yaml", {}), MAX_INDEX_BYTES, repository), repository)
    entries = (index.get("entries") or {}).get(chart) or []
    entry = next((e for e in entries if str(e.get("version")).lstrip("v") == version.lstrip("v")), None)
    if entry is None:
        raise RegistryFailed(
            f"{repository} has no chart {chart} {version}",
            measured=", ".join(str(e.get("version")) for e in entries[:5]) or "no version",
            next_step="correct source in infra/addons/*/app.yaml",
        )
    archive = _body(_get(urljoin(f"{repository}/", entry["urls"][0]), {}), MAX_CHART_BYTES, repository)
    measured = hashlib.sha256(archive).hexdigest()
    if entry.get("digest") not in (None, measured, f"sha256:{measured}"):
        raise RegistryFailed(
            f"{chart} {version} is not what its repository says", measured=measured, allowed=entry["digest"]
        )
    return measured


def _manifest_digest(registry: str, path: str, tag: str) -> str:
    url = manifest_url(registry, path, tag)
    headers = {"Accept": MANIFESTS}
    answer = _request("HEAD", url, headers)
    if answer.status == UNAUTHORIZED:
        headers["Authorization"] = f"Bearer {_token(answer.headers.get('WWW-Authenticate', ''), registry)}"
        answer = _request("HEAD", url, headers)
    if answer.status == NOT_FOUND:
        raise RegistryFailed(
            f"{registry} has no {path}:{tag}", measured="HTTP 404", next_step="correct the tag, or mirror the image"
        )
    if answer.status != OK:
        raise RegistryFailed(
            f"{registry} does not tell what {path}:{tag} is",
            measured=f"HTTP {answer.status}",
            allowed="anonymous reading",
            next_step="mirror the image to a registry that allows it",
        )
    digest: str = answer.headers.get("Docker-Content-Digest", "")
    if not digest:  # optional in the specification
        digest = f"sha256:{hashlib.sha256(_get(url, headers).data).hexdigest()}"
    if not re.match(DIGEST, digest):
        raise RegistryFailed(f"{registry} answered no digest for {path}:{tag}", measured=digest, allowed=DIGEST)
    return digest


def _token(challenge: str, registry: str) -> str:
    """Return an anonymous token, as the registry's challenge says where to get one."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if not challenge.startswith("Bearer") or "realm" not in fields:
        raise RegistryFailed(
            f"{registry} lets nobody read without an account",
            measured=challenge or "no challenge",
            next_step="mirror the image to a registry that allows it",
        )
    asked = {key: fields[key] for key in ("service", "scope") if key in fields}
    answer = _request("GET", fields["realm"], {}, fields=asked)
    try:
        document = json.loads(answer.data)
        return str(document.get("token") or document["access_token"])
    except (ValueError, KeyError, AttributeError) as error:
        raise RegistryFailed(f"{registry} gave no token", measured=f"HTTP {answer.status}") from error


def manifest_url(registry: str, path: str, tag: str) -> str:
    """Return where a tag's manifest is read. Docker's own registry has two names, and one for what has no owner; a
    registry on this machine needs no TLS."""
    if registry == "docker.io":
        owned = path if "/" in path else f"library/{path}"
        return f"https://registry-1.docker.io/v2/{owned}/manifests/{tag}"
    scheme = "http" if urlsplit(f"//{registry}").hostname in ("localhost", "127.0.0.1") else "https"
    return f"{scheme}://{registry}/v2/{path}/manifests/{tag}"


def _request(method: str, url: str, headers: dict[str, str], fields: dict[str, str] | None = None) -> Any:
    try:
        return urllib3.request(method, url, headers=headers, fields=fields, timeout=30.0, retries=2)
    except urllib3.exceptions.HTTPError as error:
        raise RegistryUnreachable(
            f"{urlsplit(url).netloc} does not answer",
            measured=str(getattr(error, "reason", error)),
            next_step="run `driftline infra lock` where it can be reached",
        ) from error


def _get(url: str, headers: dict[str, str]) -> Any:
    answer = _request("GET", url, headers)
    if answer.status != OK:
        raise RegistryFailed(f"{url} cannot be read", measured=f"HTTP {answer.status}", allowed="HTTP 200")
    return answer


def _body(answer: Any, maximum: int, what: str) -> bytes:
    data: bytes = answer.data
    if len(data) > maximum:
        raise RegistryFailed(f"{what} answered too much", measured=f"{len(data)} bytes", allowed=f"{maximum} bytes")
    return data


def _yaml(data: bytes, what: str) -> dict[str, Any]:
    try:
        document = yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.YAMLError as error:
        raise RegistryFailed(f"{what} has no readable index.yaml", measured=str(error)[:200]) from error
    if not isinstance(document, dict):
        raise RegistryFailed(f"{what} has no readable index.yaml", measured=type(document).__name__)
    return document
