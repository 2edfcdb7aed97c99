"""Errors that a person can act on.

Every message says what happened, the measured value, the allowed value and the next step.

    DriftlineError            exit 1   something failed
    ├── ConfigError           exit 2   use case, parameter or environment is wrong
    ├── DataError             exit 1   input data is missing, corrupt or contradicts its declaration
    ├── FeatureError          exit 1   registry, point-in-time join or online store
    ├── TrainingFailed        exit 1   a trainer could not produce a model
    ├── PackagingFailed       exit 1   a Bento could not be built, booted or does not equal its model
    ├── Untrusted             exit 1   a signature is missing, does not hold, or is somebody else's
    ├── ImageFailed           exit 1   a container image could not be built, pushed or signed
    ├── RegistryFailed        exit 1   a registry does not tell what an image or a chart is
    │   └── RegistryUnreachable        it does not answer
    ├── StorageFailed         exit 1   disk full, read-only or unreachable storage
    ├── LedgerError           exit 1   ledger unreachable or of another schema version
    ├── GitFailed             exit 1   the repository of releases, or its forge, could not be read or written
    ├── ClusterError          exit 1   the KFP API refused a call, or a run on the cluster cannot go on
    │   ├── ClusterUnreachable         no answer in time: what was asked for may have happened or not
    │   ├── NotOnCluster               there is no run, pipeline, version or experiment of that name
    │   └── TakenOnCluster             the name or id exists already
    └── Refused               exit 3   a gate or policy said no; nothing is broken
        ├── GateRefused                a verdict did not allow the next step
        └── Superseded                 another run promoted first
"""

from typing import ClassVar


class DriftlineError(Exception):
    """Base of all errors raised on purpose; carries the process exit code."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        measured: object = None,
        allowed: object = None,
        next_step: str = "",
    ) -> None:
        self.what = what
        self.measured = measured
        self.allowed = allowed
        self.next_step = next_step
        parts = [what]
        if measured is not None:
            parts.append(f"measured: {measured}")
        if allowed is not None:
            parts.append(f"allowed: {allowed}")
        if next_step:
            parts.append(f"next step: {next_step}")
        super().__init__("; ".join(parts))


class ConfigError(DriftlineError):
    exit_code = 2


class DataError(DriftlineError):
    pass


class FeatureError(DriftlineError):
    pass


class TrainingFailed(DriftlineError):
    pass


class PackagingFailed(DriftlineError):
    pass


class Untrusted(DriftlineError):
    pass


class ImageFailed(DriftlineError):
    pass


class RegistryFailed(DriftlineError):
    pass


class RegistryUnreachable(RegistryFailed):
    pass


class StorageFailed(DriftlineError):
    pass


class LedgerError(DriftlineError):
    pass


class GitFailed(DriftlineError):
    pass


class ClusterError(DriftlineError):
    pass


class ClusterUnreachable(ClusterError):
    pass


class NotOnCluster(ClusterError):
    pass


class TakenOnCluster(ClusterError):
    pass


class Refused(DriftlineError):
    exit_code = 3


class GateRefused(Refused):
    pass


class Superseded(Refused):
    pass
