"""A secret planted anywhere in a pipeline is found; an ordinary use case never is one."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.errors import ConfigError
from components.core.usecase import list_use_cases
from pipelines.catalog import MAX_PARAMETER_BYTES, read_case
from pipelines.compile import PIPELINES, compile_pipeline
from pipelines.lint import findings, lint
from pipelines.secrets_in_text import secret_in, secret_name

REPO = Path(__file__).parents[3] / "feature_repo"
ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
SECTIONS = ("data", "expectations", "features", "train", "evaluate", "package")


def some(alphabet: str, least: int, most: int) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most)


credentials = st.one_of(
    st.builds(
        "{}://{}:{}@db:5432/x".format,
        st.sampled_from(["postgresql", "redis", "https", "mysql+psycopg"]),
        some(ALPHANUMERIC, 0, 8),
        some(ALPHANUMERIC, 1, 20),
    ),
    st.builds("https://store/data.csv?sv=1&sig={}".format, some(ALPHANUMERIC, 8, 40)),
    st.builds("host=db user=me password={}".format, some(ALPHANUMERIC, 1, 20)),
    st.builds("{}{}".format, st.sampled_from(["AKIA", "ASIA"]), some("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", 16, 16)),
    st.builds(
        "-----BEGIN {}PRIVATE KEY-----\n{}".format,
        st.sampled_from(["", "RSA ", "EC ", "OPENSSH "]),
        some(ALPHANUMERIC, 1, 64),
    ),
    st.builds("eyJ{}.eyJ{}.{}".format, some(ALPHANUMERIC, 8, 30), some(ALPHANUMERIC, 8, 30), some(ALPHANUMERIC, 0, 43)),
    st.builds("ghp_{}".format, some(ALPHANUMERIC, 36, 36)),
)
secret_names = st.builds(
    "{}{}".format,
    st.sampled_from(["", "db_", "my-", "aws.", "MLFLOW_"]),
    st.sampled_from(
        ["password", "passwd", "token", "secret", "api_key", "apiKey", "access_key", "accessKeyId", "secretAccessKey",
         "AWS_SECRET_ACCESS_KEY", "client_secret", "clientSecret", "PASSWORD", "credentials", "private_key"]
    ),
)  # fmt: skip


@cache
def compiled() -> list[dict[str, Any]]:
    ir = compile_pipeline(read_case(REPO, list_use_cases(REPO)[0]), "training", registry="")
    return list(yaml.safe_load_all(ir))


def documents() -> list[dict[str, Any]]:
    """Return an own copy of a compiled pipeline."""
    return copy.deepcopy(compiled())


def places(value: Any) -> list[dict[str, Any]]:
    """Return every mapping within a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if isinstance(value, dict) else []), *(place for each in inner for place in places(each))]


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("name", list_use_cases(REPO))
def test_no_real_use_case_is_suspected(name: str, pipeline: str) -> None:
    ir = compile_pipeline(read_case(REPO, name), pipeline, registry="0" * 64)
    assert list(findings(list(yaml.safe_load_all(ir)), pinned=False)) == []


@settings(deadline=None, max_examples=25)
@given(data=st.data(), secret=credentials)
def test_a_credential_is_found_wherever_it_is_planted(data: st.DataObject, secret: str) -> None:
    planted = documents()
    place = data.draw(st.sampled_from(places(planted)))
    place["path"] = f"x {secret}"
    with pytest.raises(ConfigError) as raised:
        lint(planted, pinned=False)
    assert secret not in str(raised.value)
    assert "path" in raised.value.what
    assert "Secret `driftline`" in raised.value.next_step


@settings(deadline=None, max_examples=25)
@given(section=st.sampled_from(SECTIONS), name=secret_names, value=st.text(min_size=1), deep=st.booleans())
def test_a_value_that_is_named_like_a_secret_is_found(section: str, name: str, value: str, deep: bool) -> None:
    planted = documents()
    default = planted[0]["root"]["inputDefinitions"]["parameters"][section]["defaultValue"]
    default[name] = {"user": "me", "value": value} if deep else value
    with pytest.raises(ConfigError, match="looks like a secret"):
        lint(planted, pinned=False)


@settings(deadline=None, max_examples=25)
@given(name=secret_names)
def test_a_parameter_that_asks_for_a_secret_is_found(name: str) -> None:
    planted = documents()
    planted[0]["root"]["inputDefinitions"]["parameters"][name] = {"parameterType": "STRING"}
    with pytest.raises(ConfigError, match="looks like a secret"):
        lint(planted, pinned=False)


def test_a_literal_environment_variable_is_found() -> None:
    planted = documents()
    container = planted[0]["deploymentSpec"]["executors"]["exec-train"]["container"]
    container["env"] = [{"name": "MLFLOW_TRACKING_PASSWORD", "value": "hunter2"}]
    with pytest.raises(ConfigError, match="'MLFLOW_TRACKING_PASSWORD' looks like a secret") as raised:
        lint(planted, pinned=False)
    assert "hunter2" not in str(raised.value)


@settings(deadline=None, max_examples=25)
@given(name=secret_names)
def test_columns_and_tables_may_have_any_name(name: str) -> None:
    planted = documents()
    data = planted[0]["root"]["inputDefinitions"]["parameters"]["data"]["defaultValue"]
    data["sources"][name] = {"path": "x.csv", "columns": {name: "VARCHAR"}}
    data["tables"][name] = {"keys": ["id"]}
    assert list(findings(planted, pinned=False)) == []


@pytest.mark.parametrize("name", ["max_tokens", "token_count", "secretary", "keys", "key", "passengers", "primary_key"])
def test_ordinary_names(name: str) -> None:
    assert secret_name(name) == (name == "max_tokens")
    planted = documents()
    planted[0]["root"]["inputDefinitions"]["parameters"]["train"]["defaultValue"][name] = 512
    assert list(findings(planted, pinned=False)) == []


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/prefix", "http://minio:9000/a@b", "postgresql://db/x", "mail me@example.org", "SELECT a FROM b",
     "eyJ", "host=db user=me", "https://store/x.csv?version=3", "repo@sha256:" + "a" * 64],
)  # fmt: skip
def test_ordinary_texts(text: str) -> None:
    assert secret_in(text) == ""


def test_what_kfp_loses_is_refused() -> None:
    planted = documents()
    planted[0]["root"]["inputDefinitions"]["parameters"]["train"]["defaultValue"]["trainer"]["depth"] = None
    with pytest.raises(ConfigError, match=r"train\.defaultValue\.trainer\.depth: KFP knows no null"):
        lint(planted, pinned=False)


@pytest.mark.parametrize("over", [0, 1])
def test_a_parameter_above_the_limit_is_refused(over: int) -> None:
    planted = documents()
    planted[0]["root"]["inputDefinitions"]["parameters"]["as_of"]["defaultValue"] = "x" * (
        MAX_PARAMETER_BYTES - 2 + over
    )
    found = [str(error) for error in findings(planted, pinned=False)]
    assert len(found) == over
    assert all("measured: 8001 bytes; allowed: 8000 bytes" in text for text in found)


def test_a_variable_that_no_step_knows_is_refused() -> None:
    planted = documents()
    executor = planted[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"]
    executor["secretAsEnv"].append({"secretName": "mine", "keyToEnv": [{"secretKey": "a", "envVar": "HF_HOME"}]})
    with pytest.raises(ConfigError, match="HF_HOME of mine"):
        lint(planted, pinned=False)


def test_an_image_by_tag_is_refused_where_digests_count() -> None:
    assert list(findings(documents(), pinned=False)) == []
    found = list(findings(documents(), pinned=True))
    assert len(found) == len(documents()[0]["deploymentSpec"]["executors"])
    assert "make images" in found[0].next_step
