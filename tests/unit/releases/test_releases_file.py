"""release.yaml: what is written is what is read, and anything else is refused with key, value and what is allowed."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components.core.errors import ConfigError
from components.core.release import Release, ReleasedBento, ServingImage, parse_release, release_path, render_release
from components.core.release_branch import release_message, trailers

DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
BENTOS = st.fixed_dictionaries(
    {
        "tag": st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}:[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True),
        "digest": DIGEST,
        "uri": st.builds(
            "{}/{}.tar".format,
            st.sampled_from(["s3://models", "/home/driftline"]),
            st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=80),
        ),
    }
)
IMAGES = st.fixed_dictionaries(
    {
        "repository": st.from_regex(r"[a-z0-9][a-zA-Z0-9._:/-]{0,40}", fullmatch=True),
        "digest": DIGEST.map(lambda digest: f"sha256:{digest}"),
    }
)
RELEASES = st.fixed_dictionaries(
    {
        "use_case": st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True),
        "model_version": st.integers(1, 2**31),
        "model": DIGEST,
        "bento": BENTOS.map(lambda values: ReleasedBento(**values)),
        "image": IMAGES.map(lambda values: ServingImage(**values)),
        "verdict": DIGEST,
        "run_id": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", fullmatch=True),
    }
).map(lambda values: Release(**values))
GOOD = Release(
    use_case="no",
    model_version=3,
    model="a" * 64,
    bento=ReleasedBento(tag="no:3-aaaaaaaaaaaa", digest="b" * 64, uri="s3://models/bentos/x.tar"),
    image=ServingImage(repository="registry.example/team/serve", digest="sha256:" + "c" * 64),
    verdict="1" * 63 + "e",
    run_id="1e5",
)


@given(RELEASES)
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_and_is_a_text_for_every_reader(release: Release) -> None:
    text = render_release(release)
    assert parse_release(text, "here", use_case=release.use_case) == release
    assert render_release(parse_release(text, "here")) == text
    # YAML 1.1 and JSON agree on quoted texts: nothing turns into a number, a date or a boolean.
    leaves = yaml.safe_load(text)["release"]
    assert isinstance(leaves.pop("modelVersion"), int)
    flat = [v for value in leaves.values() for v in (value.values() if isinstance(value, dict) else [value])]
    assert all(isinstance(value, str) for value in flat)


@given(RELEASES, st.sampled_from(["local", "staging", "prod"]))
@settings(max_examples=50, deadline=None)
def test_a_message_tells_its_release(release: Release, environment: str) -> None:
    message = release_message(release, environment, "A | body\n\nwith: colons\nand lines")
    (group,) = trailers(message)
    assert dict(group) == {
        "Driftline-Use-Case": release.use_case,
        "Driftline-Environment": environment,
        "Driftline-Model-Version": str(release.model_version),
        "Driftline-Run": release.run_id,
    }
    assert trailers(message + "\n* another\n\n" + message) == [group, group]


def changed(path: tuple[str, ...], value: Any) -> str:
    document = copy.deepcopy(yaml.safe_load(render_release(GOOD)))
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return yaml.safe_dump(document)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("release", "modelVersion"), "3", "release.modelVersion: Input should be a valid integer (found '3')"),
        (("release", "modelVersion"), 0, "release.modelVersion"),
        (("release", "modelVersion"), True, "release.modelVersion"),
        (("release", "model"), "A" * 64, "release.model"),
        (("release", "image", "digest"), "latest", "release.image.digest"),
        (("release", "image", "tag"), "v1", "release.image.tag: unknown key"),
        (("release", "bento", "uri"), "has space", "release.bento.uri"),
        (("release", "bento", "digest"), None, "release.bento.digest: Field required"),
        (("release", "useCase"), "../../etc", "release.useCase"),
        (("release", "verdikt"), "x", "unknown key, did you mean 'verdict'?"),
        (("replicas",), 3, "replicas: unknown key"),
        (("release",), None, "release: Field required"),
        (("release",), "nothing", "release"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(path: tuple[str, ...], value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_release(changed(path, value), "envs/prod/release.yaml")
    assert raised.value.exit_code == 2
    assert said in str(raised.value.measured)
    assert raised.value.what == "envs/prod/release.yaml is no release"
    assert raised.value.allowed
    assert raised.value.next_step


@pytest.mark.parametrize(
    "text",
    [
        "",
        "release: [",
        "- 1",
        "release: &a {x: *a}",
        "<<<<<<< HEAD\nrelease: {}\n=======\n",
        "!!python/object/apply:os.system ['true']",
        "release: " + "[" * 400,
        "x" * 30_000,
        render_release(GOOD) + "release: {}\n",
        render_release(GOOD).replace("  runId", '  model: "' + "0" * 64 + '"\n  runId'),
    ],
    ids=["empty", "open", "list", "alias", "conflict", "tag", "deep", "long", "twice", "key-twice"],
)
def test_what_is_no_such_document_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no release"):
        parse_release(text, "x")


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_a_release_or_one_error(content: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_release(content.decode("utf-8", "replace"), "x")


def place(root: Path, case: str, environment: str, release: Release) -> Path:
    path = root / release_path(case, environment)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_release(release))
    return path


def check(*paths: Path, code: int) -> list[dict[str, Any]]:
    program = "from pipelines.cli import main; main()"
    words = ["release", "check", *map(str, paths), "--json"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return list(json.loads(done.stdout)) if done.stdout else []


def test_check_finds_what_is_wrong_below_a_folder(tmp_path: Path) -> None:
    place(tmp_path, "no", "staging", GOOD)
    assert [(each["version"], each["error"]) for each in check(tmp_path, code=0)] == [(3, "")]
    wrong = place(tmp_path, "no", "prod", GOOD)
    wrong.write_text(wrong.read_text().replace("modelVersion: 3", "modelVersion: three"))
    place(tmp_path, "other", "prod", GOOD)
    place(tmp_path, "no", "production", GOOD)
    errors = [each["error"] for each in check(tmp_path, code=2)]
    assert sum(bool(error) for error in errors) == 3
    told = "\n".join(errors)
    assert "release.modelVersion" in told
    assert "release.useCase: 'no'; allowed: 'other'" in told
    assert "production is no environment" in told
    (tmp_path / "empty").mkdir()
    check(tmp_path / "empty", code=2)
