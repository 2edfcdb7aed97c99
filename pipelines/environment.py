"""Environment variables of every step on a cluster, and where they come from."""

SHARED = "driftline"
"""Name of the ConfigMap with the addresses and of the Secret with the credentials."""

ADDRESSES = (
    "MLFLOW_TRACKING_URI",
    "DRIFTLINE_OBJECT_STORE_URL",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "DRIFTLINE_KFP_HOST",
    "DRIFTLINE_KFP_NAMESPACE",
    "DRIFTLINE_KFP_TOKEN",
    "DRIFTLINE_MODEL_SIGNING_KEY",
    "DRIFTLINE_MODEL_VERIFYING_KEY",
    "DRIFTLINE_GIT_URL",
    "DRIFTLINE_GIT_BRANCH",
    "DRIFTLINE_GIT_ENVIRONMENT",
)
"""Keys of the ConfigMap, each the name of its variable unless `VARIABLES` gives another."""

VARIABLES = {"MLFLOW_TRACKING_URI": "DRIFTLINE_MLFLOW_URI"}
"""Key to variable. KFP's MLflow plugin writes MLFLOW_TRACKING_URI into every step; KFP 2.17.0 merges it with another
source of that variable into one that Kubernetes refuses, and no pod starts."""

CREDENTIALS = (
    "DRIFTLINE_LEDGER_URL",
    "DRIFTLINE_FEATURE_REGISTRY_URL",
    "DRIFTLINE_ONLINE_STORE_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
)
"""Keys of the Secret: addresses with passwords in them, and keys."""

IDENTITY = {
    "DRIFTLINE_RUN_KEY": "metadata.labels['pipeline/runid']",
    "DRIFTLINE_WORKFLOW": "metadata.labels['workflows.argoproj.io/workflow']",
}
"""Variable to the field of the pod that tells a step which run and which Workflow it belongs to."""

SECRET_FILES = {
    "claim": ("driftline-git-read",),
    "package": ("driftline-model-signing",),
    "promote": ("driftline-git-write",),
}
"""Step to the Secrets that it alone sees as files, below `FILES`, where they exist."""

CONFIG_FILES = dict.fromkeys(("evaluate", "promote", "score", "monitor"), ("driftline-model-verifying",))
"""Step to the ConfigMaps that it sees as files, below `FILES`, where they exist."""

FILES = "/etc/driftline"
