"""What `driftline infra check` refuses before anything is applied, and what `pin` and `lock` may change."""

import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import ConfigError
from components.core.release import Release, ReleasedBento, ServingImage, render_release
from pipelines.commands.infra import command
from pipelines.infra.check import check_tree
from pipelines.infra.generate import addon_values, generated_files, kfp_component, missing_of_addon
from pipelines.infra.lock import write_lock
from pipelines.infra.model import Addon, ChartSource, HiddenImage, KfpImages, Lock, LockedImage, PinnedImage
from pipelines.infra.pin import pin
from pipelines.infra.read import read_addons, read_kfp_images, read_lock
from pipelines.schedules.read import read_schedule

INFRA = Path(__file__).parents[2] / "infra"
COMPILED = {"flights-training": "flights-training-1a2b3c4d5e6f", "flights-scoring": "flights-scoring-0a0b0c0d0e0f"}
RELEASE = Release(
    use_case="flights",
    model_version=3,
    model="a" * 64,
    bento=ReleasedBento(tag="flights:abc", digest="b" * 64, uri="s3://models/bentos/flights.tar"),
    image=ServingImage(repository="registry.example.com/driftline-serve", digest="sha256:" + "c" * 64),
    verdict="d" * 64,
    run_id="run-1",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the tree, with the charts it refers to."""
    shutil.copytree(INFRA, tmp_path / "infra")
    for chart in (INFRA.parent / "charts").glob("*/Chart.yaml"):
        (tmp_path / "charts" / chart.parent.name).mkdir(parents=True)
        shutil.copy(chart, tmp_path / "charts" / chart.parent.name)
    return tmp_path / "infra"


def put_compiled(folder: Path, versions: dict[str, str]) -> None:
    (folder / "pipelines").mkdir(exist_ok=True)
    for name, version in versions.items():
        objects: list[dict[str, Any]] = [
            {
                "apiVersion": "pipelines.kubeflow.org/v2beta1",
                "kind": "Pipeline",
                "metadata": {"name": name},
                "spec": {},
            },
            {
                "apiVersion": "pipelines.kubeflow.org/v2beta1",
                "kind": "PipelineVersion",
                "metadata": {"name": version},
                "spec": {"pipelineName": name},
            },
        ]
        (folder / "pipelines" / f"{name}.kubernetes.yaml").write_text(yaml.safe_dump_all(objects))


def told(root: Path) -> str:
    return "\n".join(f"{f.where} {f.what} {f.next_step}" for f in check_tree(root, ["local"]))


def test_the_local_cluster_passes_and_a_missing_digest_is_refused_with_the_next_step(root: Path) -> None:
    assert told(root) == ""
    result = CliRunner().invoke(command, ["check", "--dir", str(root), "--cluster", "prod"], standalone_mode=False)
    assert result.return_value == 2
    assert "kfp: no digest of image ghcr.io/kubeflow/kfp-launcher:2.17.0" in result.output
    assert "no digest of chart https://charts.jetstack.io/cert-manager:v1.21.1" in result.output
    assert "next step: run `driftline infra lock`" in result.output
    assert "no digest of image cpu" in result.output
    assert "run `driftline infra lock --images images.json`" in result.output


def test_an_add_on_or_an_overlay_that_is_not_there(root: Path) -> None:
    path = root / "clusters/local/cluster.yaml"
    text = path.read_text()
    path.write_text(
        text.replace("addons: {elements: []}", "addons: {elements: [{addon: certmanager}, {addon: valkey}]}")
    )
    assert "there is no add-on 'certmanager' one of: argo-rollouts, cert-manager" in told(root)
    path.write_text(text.replace("kfp: {elements: []}", "kfp: {elements: [{path: infra/kfp/overlays/lokal}]}"))
    assert "no kustomization at 'infra/kfp/overlays/lokal'" in told(root)
    path.write_text(text.replace("pollSeconds: 15", "pollSeconds: 1"))
    with pytest.raises(ConfigError, match=r"cluster\.yaml is wrong: .*pollSeconds"):
        check_tree(root, [])
    path.write_text(text)
    with pytest.raises(ConfigError, match="there is no such cluster"):
        check_tree(root, ["production"])


def test_a_base_that_is_no_commit_is_refused(root: Path) -> None:
    path = root / "kfp/base/kustomization.yaml"
    path.write_text(path.read_text().replace("4a3592cb2dd0a91a4652ab93893ec8beda1f3158", "2.17.0", 1))
    assert "is not pinned end it with ?ref=<40 hex digits of a commit>" in told(root)


def test_generated_files_that_somebody_edited_are_told(root: Path) -> None:
    path = root / "addons/cert-manager/digests.yaml"
    path.write_text(path.read_text().replace("sha256:4", "sha256:5"))
    assert "is not what lock.yaml says run `driftline infra lock`" in told(root)
    (root / "lock.yaml").write_text("images: {docker.io/library/alpine: latest}\n")
    with pytest.raises(ConfigError, match=r"lock\.yaml is wrong"):
        check_tree(root, [])


def test_a_schedule_for_an_unknown_pipeline_is_refused(root: Path) -> None:
    flights = root / "usecases/flights"
    put_compiled(flights, COMPILED)
    pin(root)
    findings = told(root)
    assert "schedules/monitoring.yaml is for pipeline flights-monitoring, which is not compiled here" in findings
    assert "driftline compile --target kubernetes --use-case flights --output" in findings
    (flights / "schedules/monitoring.yaml").unlink()
    pin(root)
    assert told(root) == ""


def test_a_schedule_is_pinned_to_the_version_beside_it(root: Path) -> None:
    flights = root / "usecases/flights"
    before = (flights / "schedules/training.yaml").read_text()
    (flights / "schedules/monitoring.yaml").unlink()
    put_compiled(flights, COMPILED)
    assert "does not name the files and versions that are there run `driftline infra pin`" in told(root)
    assert {path.name for path in pin(root)} == {"kustomization.yaml", "scoring.yaml", "training.yaml"}
    assert (flights / "schedules/training.yaml").read_text() == before + "version: flights-training-1a2b3c4d5e6f\n"
    assert pin(root) == []
    newer = {**COMPILED, "flights-training": "flights-training-ffffffffffff"}
    put_compiled(flights, newer)
    assert [path.name for path in pin(root)] == ["training.yaml"]
    assert read_schedule(flights / "schedules/training.yaml").version == "flights-training-ffffffffffff"
    resources = yaml.safe_load((flights / "kustomization.yaml").read_text())["resources"]
    assert resources == ["pipelines/flights-scoring.kubernetes.yaml", "pipelines/flights-training.kubernetes.yaml"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("modelVersion: 3", 'modelVersion: "three"'), "release.modelVersion"),
        (lambda text: text.replace("sha256:", "sha512:"), "release.image.digest"),
        (lambda text: text.replace('useCase: "flights"', 'useCase: "wind"'), "'wind'"),
        (lambda text: text + "replicas: 9\n", "replicas"),
        (lambda text: text + text, "a key is there twice"),
        (lambda _text: "<<<<<<< HEAD\n", "docs/releases.md"),
    ],
)
def test_a_release_that_was_edited_into_nonsense_is_refused(
    root: Path, change: Callable[[str], str], said: str
) -> None:
    path = root / "usecases/flights/envs/local/release.yaml"
    path.write_text(render_release(RELEASE))
    assert told(root) == ""
    path.write_text(change(render_release(RELEASE)))
    findings = told(root)
    assert "is no release" in findings
    assert said in findings
    assert "git revert" in findings


def test_two_releases_of_one_use_case_in_one_environment_are_refused(root: Path) -> None:
    folder = root / "usecases/flights/envs/local"
    (folder / "release.yaml").write_text(render_release(RELEASE))
    (folder / "release-4.yaml").write_text(render_release(RELEASE))
    assert "release-4.yaml does not belong here: one release.yaml and one values.yaml per environment" in told(root)
    (folder / "release-4.yaml").unlink()
    (folder / "values.yaml").write_text("release: {modelVersion: 4}\n")
    assert "values.yaml names a release; only release.yaml does" in told(root)
    (root / "usecases/flights/envs/production").mkdir()
    assert "is no environment one of: local, staging, prod" in told(root)


def test_a_use_case_without_a_namespace_is_refused(root: Path) -> None:
    shutil.copytree(root / "usecases/wind", root / "usecases/tides")
    for path in (root / "usecases/tides/schedules").iterdir():
        path.write_text(path.read_text().replace("wind", "tides"))
    pin(root)
    assert "no namespace is declared for this use case" in told(root)


def test_what_is_no_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is no infrastructure tree"):
        check_tree(tmp_path, [])


# Rules that hold for every lock

names = st.text(string.ascii_lowercase, min_size=1, max_size=8)
images = st.builds("{}.example.com/{}/{}:{}".format, names, names, names, st.sampled_from(["1.0", "v2", "latest-1"]))
digests = st.integers(0, 2**256 - 1).map(lambda number: f"sha256:{number:064x}")
forms = st.sampled_from(["{digest}", "{hex}", "{tag}@{digest}", "{repository}@{digest}"])


@given(st.dictionaries(images, digests, min_size=1, max_size=6), st.data())
def test_values_name_all_digests_or_do_not_exist(known: dict[str, str], data: st.DataObject) -> None:
    pins = [
        PinnedImage(image=image, values={f"part{number}.image": data.draw(forms)})
        for number, image in enumerate(sorted(known))
    ]
    addon = Addon(tier="2-data", namespace="demo", source=ChartSource(path="charts/demo"), images=pins)
    locked = data.draw(st.sets(st.sampled_from(sorted(known))))
    lock = Lock(images={image: LockedImage(digest=known[image]) for image in locked})
    text = addon_values(addon, lock)
    assert missing_of_addon(addon, lock) == sorted(set(known) - locked)
    assert (text is None) == bool(set(known) - locked)
    for image, digest in known.items() if text else ():
        assert digest.removeprefix("sha256:") in str(text), image
    if text:
        parts = [value["image"] for value in yaml.safe_load(text).values()]
        assert all(isinstance(part, str) for part in parts)
        assert all(f'"{part}"' in text for part in parts), "quoted, or Helm reads digits as a number"


@given(st.dictionaries(images, digests, min_size=2, max_size=8), st.data())
def test_the_component_of_kfp_pins_all_or_refuses(known: dict[str, str], data: st.DataObject) -> None:
    ordered = sorted(known)
    hidden = HiddenImage(image=ordered[0], deployment="d", container="c", env="IMAGE")
    kfp = KfpImages(images=ordered[1:], hidden=[hidden])
    locked = data.draw(st.sets(st.sampled_from(ordered)))
    lock = Lock(images={image: LockedImage(digest=known[image]) for image in locked})
    component = yaml.safe_load(kfp_component(kfp, lock))
    if set(ordered) - locked:
        assert component["resources"]
        assert "images" not in component
    else:
        assert {f"{i['name']}@{i['digest']}" for i in component["images"]} == {
            f"{image.rpartition(':')[0]}@{known[image]}" for image in ordered[1:]
        }
        assert known[ordered[0]] in component["patches"][0]["patch"]


def test_a_lock_is_read_as_it_was_written_and_the_generated_files_follow(root: Path) -> None:
    addons, kfp, lock = read_addons(root), read_kfp_images(root), read_lock(root)
    before = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    write_lock(root, lock, addons, kfp)
    assert before == {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    assert {path for path, text in generated_files(addons, kfp, lock).items() if text} == {
        path.relative_to(root)
        for path in [*root.glob("addons/*/digests.yaml"), root / "kfp/components/digests/kustomization.yaml"]
    }


@pytest.mark.parametrize(
    ("image", "wrong"),
    [
        ({"image": "quay.io/a/b:1", "values": {"image.tag": "{tag}"}}, "no value holds"),
        ({"image": "quay.io/a/b", "values": {"image.digest": "{digest}"}}, "image"),
        ({"image": "quay.io/a/b:1", "built": "cpu", "values": {"image.digest": "{digest}"}}, "give `image` or `built`"),
        ({"built": "cpu", "values": {"image.tag": "{tag}@{digest}"}}, "has no {tag}"),
    ],
)
def test_an_add_on_whose_images_would_not_be_pinned_is_refused(root: Path, image: dict[str, Any], wrong: str) -> None:
    path = root / "addons/cert-manager/app.yaml"
    document = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**document, "images": [image]}))
    with pytest.raises(ConfigError) as refused:
        read_addons(root)
    assert wrong in str(refused.value)
    path.write_text(yaml.safe_dump({**document, "source": {**document["source"], "version": "1.x"}}))
    with pytest.raises(ConfigError, match=r"source\.version"):
        read_addons(root)
