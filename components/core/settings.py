"""Where state lives: the only reader of environment variables.

Addresses and credentials come from the environment, never from pipeline parameters.
"""

import os
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.core.errors import ConfigError

# Libraries read these when they are imported, so they are set before anything heavy is.
QUIET = {
    "BENTOML_DO_NOT_TRACK": "true",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "FEAST_USAGE": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # Waiting OpenMP threads spin otherwise: on two busy cores one training took 12.8 CPU-seconds instead of 2.2.
    "OMP_WAIT_POLICY": "PASSIVE",
}


GIT_FILES = (Path("/etc/driftline/git-write"), Path("/etc/driftline/git-read"))
"""Where the Secrets `driftline-git-write` and `driftline-git-read` are mounted, each where its step may have it."""


class Settings(BaseModel):
    """Addresses of every store; the defaults are embedded and live under `home`."""

    model_config = ConfigDict(frozen=True)

    home: Path
    feature_repo: Path
    ledger_url: str
    mlflow_uri: str
    feature_registry_url: str
    online_store_url: str
    inference_log: Path | None = None
    """Where a served model appends its predictions; None: nowhere."""
    shadow_url: str = ""
    """Server that gets copies of all answered requests, `http://HOST:PORT`; empty: none."""
    bento: str = ""
    """The Bento that a serving container answers with: a path of a tar or of a folder it was unpacked to, or the
    address of a tar in the object store, as the ledger and `release.yaml` name it."""
    bento_digest: str = ""
    """SHA-256 that the tar must have; empty: only a path may be served, and its content is not checked."""
    model_signing_key: Path | None = None
    """File with the private EC key, PEM, that signs what is packaged; None: nothing is signed."""
    model_verifying_key: Path | None = None
    """File with the public EC key, PEM, of whoever may sign; None: nobody's signature is asked for."""
    object_store_url: str = ""
    """Where files of `home` that others need are kept too, such as `s3://bucket/prefix`; empty: `home` is shared itself
    or nobody else's. Endpoint and keys are the AWS variables that every S3 client reads."""
    git_url: str = ""
    """Repository that says what serves; empty: no promotion is committed. A path or any address that `git` takes."""
    git_branch: str = "main"
    git_environment: str = "local"
    """Environment whose `release.yaml` this installation writes."""
    git_signing_key: Path | None = None
    """File with a GPG private key without passphrase, which signs commits."""
    git_token: Path | None = None
    """File with the token for a repository behind HTTPS and for the forge's API."""
    git_ssh_key: Path | None = None
    """File with the private key for a repository behind SSH; `known_hosts` beside it names its host's keys."""
    forge_url: str = ""
    """Root of the API that opens pull requests, of GitHub, Gitea or Forgejo; empty: branches are only pushed."""
    kfp_host: str = ""
    """Address of the KFP API server; empty: runs are started on this machine."""
    kfp_namespace: str = ""
    """Namespace of the runs where KFP serves several users; empty: single user."""
    kfp_token: Path | None = None
    """File with the bearer token for the KFP API, read again for each call; None: the API asks for none."""
    kubeconfig: Path | None = None
    """How a process outside a cluster reaches the Kubernetes API; None: it does not."""
    run_key: str = ""
    """Identity of this run: the KFP run id on a cluster, our own key locally. It is no parameter, since a
    parameter that changes with each run would defeat the cache of every step."""
    workflow: str = ""
    """Name of the Argo Workflow that runs this step; empty outside a cluster."""
    mlflow_run: str = ""
    """MLflow run that KFP's own MLflow plugin opened for this step; empty without the plugin."""

    @property
    def snapshots(self) -> Path:
        return self.home / "snapshots"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def checkpoints(self) -> Path:
        return self.home / "checkpoints"

    @property
    def bentos(self) -> Path:
        return self.home / "bentos"

    @property
    def predictions(self) -> Path:
        """Root of the inference log for everybody but a Bento alone."""
        return self.inference_log or self.home / "predictions"

    @property
    def shadow_predictions(self) -> Path:
        """Root of the inference log of a shadow: what it answered, nobody got."""
        return self.home / "shadow"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.home / "mlflow" / "artifacts"

    def environment(self) -> dict[str, str]:
        """Return the variables by which another process reads the same addresses; `load_settings` is the inverse."""
        return {
            "DRIFTLINE_HOME": str(self.home),
            "DRIFTLINE_FEATURE_REPO": str(self.feature_repo),
            "DRIFTLINE_LEDGER_URL": self.ledger_url,
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
            "DRIFTLINE_FEATURE_REGISTRY_URL": self.feature_registry_url,
            "DRIFTLINE_ONLINE_STORE_URL": self.online_store_url,
            "DRIFTLINE_INFERENCE_LOG": str(self.inference_log or ""),
            "DRIFTLINE_SHADOW_URL": self.shadow_url,
            "DRIFTLINE_BENTO": self.bento,
            "DRIFTLINE_BENTO_DIGEST": self.bento_digest,
            "DRIFTLINE_MODEL_SIGNING_KEY": str(self.model_signing_key or ""),
            "DRIFTLINE_MODEL_VERIFYING_KEY": str(self.model_verifying_key or ""),
            "DRIFTLINE_OBJECT_STORE_URL": self.object_store_url,
            "DRIFTLINE_GIT_URL": self.git_url,
            "DRIFTLINE_GIT_BRANCH": self.git_branch,
            "DRIFTLINE_GIT_ENVIRONMENT": self.git_environment,
            "DRIFTLINE_GIT_SIGNING_KEY": str(self.git_signing_key or ""),
            "DRIFTLINE_GIT_TOKEN": str(self.git_token or ""),
            "DRIFTLINE_GIT_SSH_KEY": str(self.git_ssh_key or ""),
            "DRIFTLINE_FORGE_URL": self.forge_url,
            "DRIFTLINE_KFP_HOST": self.kfp_host,
            "DRIFTLINE_KFP_NAMESPACE": self.kfp_namespace,
            "DRIFTLINE_KFP_TOKEN": str(self.kfp_token or ""),
            "KUBECONFIG": str(self.kubeconfig or ""),
        }


def embedded_settings(home: Path, feature_repo: Path) -> Settings:
    """Return settings whose stores are all embedded below `home`."""
    return Settings(
        home=home,
        feature_repo=feature_repo,
        ledger_url=f"sqlite:///{home}/ledger.db",
        mlflow_uri=f"sqlite:///{home}/mlflow/mlflow.db",
        feature_registry_url=f"sqlite:///{home}/feast/registry.db",
        online_store_url=f"sqlite:///{home}/feast/online.db",
    )


def load_settings() -> Settings:
    """Read the environment and switch library telemetry and pickle loading off.

    Variables: DRIFTLINE_HOME, DRIFTLINE_FEATURE_REPO, DRIFTLINE_LEDGER_URL, MLFLOW_TRACKING_URI, else
    DRIFTLINE_MLFLOW_URI (steps on a cluster, where KFP's MLflow plugin owns the other one),
    DRIFTLINE_FEATURE_REGISTRY_URL, DRIFTLINE_ONLINE_STORE_URL, DRIFTLINE_INFERENCE_LOG, DRIFTLINE_BENTO,
    DRIFTLINE_BENTO_DIGEST, DRIFTLINE_MODEL_SIGNING_KEY, DRIFTLINE_MODEL_VERIFYING_KEY, DRIFTLINE_OBJECT_STORE_URL,
    DRIFTLINE_GIT_URL, DRIFTLINE_GIT_BRANCH, DRIFTLINE_GIT_ENVIRONMENT, DRIFTLINE_GIT_SIGNING_KEY, DRIFTLINE_GIT_TOKEN,
    DRIFTLINE_GIT_SSH_KEY, DRIFTLINE_FORGE_URL, DRIFTLINE_KFP_HOST, DRIFTLINE_KFP_NAMESPACE, DRIFTLINE_KFP_TOKEN,
    KUBECONFIG, DRIFTLINE_SHADOW_URL, DRIFTLINE_RUN_KEY, DRIFTLINE_WORKFLOW, MLFLOW_RUN_ID.
    """
    silence_libraries()
    read = os.environ.get
    if region := read("AWS_REGION"):
        # Pods are given this one (EKS sets it too), botocore reads the other.
        os.environ.setdefault("AWS_DEFAULT_REGION", region)
    home = Path(read("DRIFTLINE_HOME") or ".driftline").absolute()
    feature_repo = Path(read("DRIFTLINE_FEATURE_REPO") or "feature_repo").absolute()
    embedded = embedded_settings(home, feature_repo)
    return Settings(
        home=home,
        feature_repo=feature_repo,
        ledger_url=read("DRIFTLINE_LEDGER_URL") or embedded.ledger_url,
        mlflow_uri=read("MLFLOW_TRACKING_URI") or read("DRIFTLINE_MLFLOW_URI") or embedded.mlflow_uri,
        feature_registry_url=read("DRIFTLINE_FEATURE_REGISTRY_URL") or embedded.feature_registry_url,
        online_store_url=read("DRIFTLINE_ONLINE_STORE_URL") or embedded.online_store_url,
        inference_log=Path(log).absolute() if (log := read("DRIFTLINE_INFERENCE_LOG")) else None,
        shadow_url=(read("DRIFTLINE_SHADOW_URL") or "").rstrip("/"),
        bento=read("DRIFTLINE_BENTO") or "",
        bento_digest=(read("DRIFTLINE_BENTO_DIGEST") or "").removeprefix("sha256:").lower(),
        model_signing_key=Path(key) if (key := read("DRIFTLINE_MODEL_SIGNING_KEY")) else None,
        model_verifying_key=Path(key) if (key := read("DRIFTLINE_MODEL_VERIFYING_KEY")) else None,
        object_store_url=(read("DRIFTLINE_OBJECT_STORE_URL") or "").rstrip("/"),
        git_url=read("DRIFTLINE_GIT_URL") or "",
        git_branch=read("DRIFTLINE_GIT_BRANCH") or "main",
        git_environment=read("DRIFTLINE_GIT_ENVIRONMENT") or "local",
        git_signing_key=_git_file(read("DRIFTLINE_GIT_SIGNING_KEY"), "signing-key"),
        git_token=_git_file(read("DRIFTLINE_GIT_TOKEN"), "token"),
        git_ssh_key=_git_file(read("DRIFTLINE_GIT_SSH_KEY"), "ssh-key"),
        forge_url=(read("DRIFTLINE_FORGE_URL") or "").rstrip("/"),
        kfp_host=(read("DRIFTLINE_KFP_HOST") or "").rstrip("/"),
        kfp_namespace=read("DRIFTLINE_KFP_NAMESPACE") or "",
        kfp_token=Path(token) if (token := read("DRIFTLINE_KFP_TOKEN")) else None,
        kubeconfig=Path(file) if (file := read("KUBECONFIG")) else None,
        run_key=read("DRIFTLINE_RUN_KEY") or "",
        workflow=read("DRIFTLINE_WORKFLOW") or "",
        mlflow_run=read("MLFLOW_RUN_ID") or "",
    )


def _git_file(given: str | None, name: str) -> Path | None:
    """Return the file that a variable names, or else the one that a mounted Secret holds: writers have their own."""
    if given:
        return Path(given).absolute()
    return next((path for folder in GIT_FILES if (path := folder / name).is_file()), None)


def silence_libraries() -> None:
    """Switch telemetry, pickle loading and spinning threads off for every library that is imported after this call."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def check_run_key(run_key: str) -> str:
    """Return a run key that is safe as a folder name and in a query.

    Raises ConfigError when it is empty or has other characters.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", run_key):
        raise ConfigError(
            "this run has no usable key",
            measured=repr(run_key),
            allowed="1 to 128 letters, digits, '.', '_' and '-'",
            next_step="set DRIFTLINE_RUN_KEY; it must be the same when a run is retried",
        )
    return run_key
