"""Reading what a step on the cluster wrote, from KFP's own object store."""

import re

from components.core.verdict import Verdict

SECONDS = 10


def read_verdict_at(uri: str) -> Verdict | str:
    """Return the verdict at an `s3://` or `minio://` URI, or why it cannot be read from here.

    Endpoint and keys are the AWS variables that every S3 client reads; they may be of another store than KFP's.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from s3fs import S3FileSystem

    path = re.sub(r"^(s3|minio)://", "", uri)
    if path == uri:
        return "only s3:// and minio:// are read"
    store = S3FileSystem(
        config_kwargs={"connect_timeout": SECONDS, "read_timeout": SECONDS, "retries": {"max_attempts": 1}}
    )
    try:
        return Verdict.model_validate_json(store.cat_file(path))
    except (OSError, BotoCoreError, ClientError, ValueError) as error:
        return str(error) or type(error).__name__
