"""Files that steps on other machines need: `home` is a cache, the object store behind it holds what counts.

On a cluster each step has a home of its own that dies with its pod. Whoever finishes a file that others need publishes
it; whoever needs one fetches it first. So every library goes on reading local files, and nothing needs to speak S3
itself. A file's key is its path below `home` (docs/adr/0014). Without `settings.object_store_url` nothing happens here.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from components.core.errors import ConfigError, StorageFailed
from components.core.settings import Settings
from components.core.storage import write_atomically
from components.core.tables import Snapshot, snapshot_files

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 150.0
"""A store that is away for a minute or two delays a step; KFP's own retry would start it from the beginning."""
LONGEST_PAUSE_SECONDS = 8.0
THREADS = 8
MARK = "driftline-writer"
# Transient by S3's own documentation (error responses): what is repeated besides lost connections. The conflict is
# what AWS answers to one of two conditional writes at the same instant: it asks for the write to be repeated.
_TRANSIENT = (
    *("500", "502", "503", "504"),
    *("InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "ConditionalRequestConflict"),
)
_Result = TypeVar("_Result")


def publish(settings: Settings, path: Path) -> None:
    """Put a finished file into the store, replacing an earlier one. Raises StorageFailed."""
    if settings.object_store_url:
        _patiently(settings, "write", path, lambda store: store.put_file(str(path), address(settings, path)))


def publish_all(settings: Settings, paths: Iterable[Path]) -> None:
    """Put content-addressed files into the store, several at once; those that are there already are left alone."""
    if settings.object_store_url:
        _in_parallel(lambda path: publish_once(settings, path), paths)


def publish_once(settings: Settings, path: Path) -> bool:
    """Put a file into the store unless one is there; return whether this call did it.

    Of several writers exactly one gets True (a conditional PUT, If-None-Match). Raises StorageFailed.
    """
    # A first request may have been served although its answer got lost, and the libraries below repeat it unseen: the
    # mark tells who wrote what is there.
    mark = uuid.uuid4().hex

    def put(store: Any) -> bool:
        key = address(settings, path)
        try:
            store.put_file(str(path), key, mode="create", Metadata={MARK: mark})
        except OSError as error:
            # Servers other than AWS do not say which condition failed, so s3fs does not make it a FileExistsError.
            if not isinstance(error, FileExistsError) and _code(error) != "PreconditionFailed":
                raise
            return bool(store.metadata(key, refresh=True).get(MARK) == mark)
        return True

    return _patiently(settings, "write", path, put)


def fetch(settings: Settings, path: Path, *, again: bool = False) -> bool:
    """Make a file local and return whether it exists; `again` also where an older one may be at hand.

    With `again` it exists if the store has it: a local file that the store lacks stays, and counts for nobody. The
    file appears whole or not at all. Raises StorageFailed.
    """
    if not settings.object_store_url or (path.is_file() and not again):
        return path.is_file()

    def get(store: Any) -> bool:
        try:
            content = _content(store, address(settings, path))
        except FileNotFoundError as error:
            return _without_bucket(error)
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
        return True

    return _patiently(settings, "read", path, get)


def fetch_all(settings: Settings, paths: Iterable[Path]) -> None:
    """Make files local, several at once; what the store does not have stays missing. Raises StorageFailed."""
    if settings.object_store_url:
        _in_parallel(lambda path: fetch(settings, path), paths)


def are_kept(settings: Settings, paths: Iterable[Path]) -> bool:
    """Return whether every file is at hand or in the store, which is listed and not read. Raises StorageFailed."""
    missing = {path for path in paths if not path.is_file()}
    if not missing or not settings.object_store_url:
        return not missing
    listed = _in_parallel(
        lambda folder: {folder / name for name in _names(settings, folder)}, {path.parent for path in missing}
    )
    return missing <= set().union(*listed)


def fetch_snapshot(settings: Settings, snapshot: Snapshot) -> None:
    """Make all tables of a snapshot local. Raises StorageFailed."""
    fetch_all(settings, snapshot_files(settings.snapshots, snapshot))


def fetch_predictions(settings: Settings, use_case: str, first: datetime, last: datetime) -> None:
    """Make the inference log's days from `first` to `last` local. Raises StorageFailed."""
    days = [str(instant.astimezone(UTC).date()) for instant in (first, last)]
    _fetch_folders(settings, settings.predictions / use_case, lambda name: days[0] <= name <= days[1])


def fetch_log(settings: Settings, use_case: str = "") -> None:
    """Make the whole inference log local, of one use case or of all. Raises StorageFailed."""
    if settings.object_store_url:
        for name in [use_case] if use_case else _names(settings, settings.predictions):
            _fetch_folders(settings, settings.predictions / name, lambda _day: True)


def _fetch_folders(settings: Settings, parent: Path, wanted: Callable[[str], bool]) -> None:
    """Make all files local that lie directly in the wanted subfolders of `parent`."""
    if settings.object_store_url:
        folders = [parent / name for name in _names(settings, parent) if wanted(name)]
        found = _in_parallel(lambda folder: [folder / name for name in _names(settings, folder)], folders)
        fetch_all(settings, [path for paths in found for path in paths])


def address(settings: Settings, path: Path) -> str:
    """Return how a file of `home` is named for everybody: its URL in the store; without a store its own path.

    Raises ConfigError for a file that does not lie below `home` or the inference log.
    """
    if not settings.object_store_url:
        return str(path)
    # A shadow's inference log is the shadow's folder: its rows must not come to lie among what was answered.
    shadow, answered = (settings.shadow_predictions, ("shadow",)), (settings.predictions, ("predictions",))
    for root, prefix in (shadow, answered, (settings.home, ())):
        if path.is_relative_to(root):
            return "/".join((settings.object_store_url, *prefix, *path.relative_to(root).parts))
    raise ConfigError("a file outside of DRIFTLINE_HOME cannot be shared", measured=path, allowed=settings.home)


def local_path(settings: Settings, named: str) -> Path:
    """Return where the file that `address` named lies here; it may have to be fetched."""
    prefix = f"{settings.object_store_url}/"
    if settings.object_store_url and named.startswith(prefix):
        return settings.home / named.removeprefix(prefix)
    return Path(named)


def _content(store: Any, key: str) -> bytes:
    """Read a file in one request: several could mix two contents of a file that is replaced meanwhile."""
    content: bytes = store.cat_file(key, max_concurrency=1)
    return content


def _names(settings: Settings, folder: Path) -> list[str]:
    def names(store: Any) -> list[str]:
        try:
            return [str(name).rsplit("/", 1)[-1] for name in store.ls(address(settings, folder), detail=False)]
        except FileNotFoundError as error:
            _without_bucket(error)
            return []

    return _patiently(settings, "list", folder, names)


def _without_bucket(error: FileNotFoundError) -> bool:
    """Return False for a key that is not there; a bucket that is not there is an error, and raised again."""
    if _code(error) == "NoSuchBucket":
        raise OSError(str(error)) from error.__cause__
    return False


def _in_parallel(work: Callable[[Path], _Result], paths: Iterable[Path]) -> list[_Result]:
    with ThreadPoolExecutor(THREADS, thread_name_prefix="object-store") as pool:
        return list(pool.map(work, paths))


def _store() -> Any:
    """Return the client; endpoint, region and keys are the AWS variables that it reads itself.

    It tries once: a conditional write that it repeated unseen would be refused for its own first attempt.
    """
    from s3fs import S3FileSystem

    once = {"connect_timeout": 5, "read_timeout": 60, "retries": {"total_max_attempts": 1}}
    store = S3FileSystem(config_kwargs=once, use_listings_cache=False)
    store.retries = 1
    return store


def _patiently(settings: Settings, verb: str, path: Path, work: Callable[[Any], _Result]) -> _Result:
    """Do some work with the store; repeat it while the store is away, up to PATIENCE_SECONDS."""
    from botocore.exceptions import BotoCoreError, ClientError
    from s3fs.core import S3_RETRYABLE_ERRORS

    started, pause = time.monotonic(), 1.0
    while True:
        try:
            return work(_store())
        except (OSError, BotoCoreError, ClientError, *S3_RETRYABLE_ERRORS) as error:
            waited = time.monotonic() - started
            if not _is_transient(error) or waited + pause > PATIENCE_SECONDS:
                raise _failed(settings, verb, path, error, waited) from error
            log.warning("the object store does not answer (%s); trying again in %.0f s", _reason(error), pause)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _is_transient(error: Exception) -> bool:
    from botocore.exceptions import ConnectionError as Unreachable
    from s3fs.core import S3_RETRYABLE_ERRORS

    if isinstance(error, (Unreachable, ConnectionError, TimeoutError, *S3_RETRYABLE_ERRORS)):
        return True
    status = str(_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    return _code(error) in _TRANSIENT or status in _TRANSIENT


def _code(error: Exception) -> str:
    return str(_response(error).get("Error", {}).get("Code", ""))


def _response(error: Exception) -> dict[str, Any]:
    """Return what S3 answered: s3fs turns botocore's error into one of Python's own."""
    found: dict[str, Any] = getattr(error.__cause__, "response", None) or getattr(error, "response", None) or {}
    return found


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _failed(settings: Settings, verb: str, path: Path, error: Exception, waited_seconds: float) -> StorageFailed:
    tried = f" (tried for {waited_seconds:.0f} s)" if waited_seconds > 1 else ""
    return StorageFailed(
        f"cannot {verb} {address(settings, path)}",
        measured=_reason(error) + tried,
        allowed="an S3 bucket that answers at AWS_ENDPOINT_URL and that these keys may read and write",
        next_step="check DRIFTLINE_OBJECT_STORE_URL and the AWS_* variables, then run the command again",
    )
