"""The infrastructure tree as kustomize renders it: what Argo CD gets, equal in three environments but for values."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.core.release import Release, ReleasedBento, ServingImage, render_release
from pipelines.infra.check import check_tree
from pipelines.infra.generate import REFUSAL
from pipelines.infra.lock import write_lock
from pipelines.infra.model import Lock, LockedImage
from pipelines.infra.pin import pin
from pipelines.infra.read import read_addons, read_clusters, read_kfp_images

INFRA = Path(__file__).parents[2] / "infra"
CLUSTERS = ("local", "staging", "prod")
KFP_REMOTE = re.compile(r"https://github\.com/kubeflow/pipelines//(\S+)\?ref=[0-9a-f]{40}")
Manifest = dict[str, Any]


def kustomize_command() -> list[str]:
    """Return a kustomize 5, on its own or in kubectl; Debian's kubectl has one of 2019."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        answer = subprocess.run(
            ["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True, check=False
        )
        if json.loads(answer.stdout or "{}").get("kustomizeVersion", "").startswith("v5"):
            return ["kubectl", "kustomize"]
    return []


@pytest.fixture(scope="session")
def build() -> Callable[[Path], list[Manifest]]:
    """Return build(folder) -> objects."""
    command = kustomize_command()
    if not command:
        reason = "needs kustomize 5 (go install sigs.k8s.io/kustomize/kustomize/v5) or a kubectl that holds it"
        if "kustomize" in os.environ.get("DRIFTLINE_REQUIRE", "").split(","):
            pytest.fail(f"{reason}; DRIFTLINE_REQUIRE names kustomize")
        pytest.skip(reason)

    def build_folder(folder: Path) -> list[Manifest]:
        done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(done.stderr)
        return [d for d in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if d]

    return build_folder


@pytest.fixture(scope="session")
def rendered(build: Callable[[Path], list[Manifest]]) -> dict[str, list[Manifest]]:
    return {name: build(INFRA / "bootstrap" / name) for name in CLUSTERS}


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] == kind}


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def test_what_argo_cd_is_given_is_valid(
    rendered: dict[str, list[Manifest]], check: Callable[[list[Manifest]], None]
) -> None:
    for manifests in rendered.values():
        assert {m["kind"] for m in manifests} == {"AppProject", "Application", "ApplicationSet", "ConfigMap"}
        check(manifests)


def test_every_value_is_filled_in(rendered: dict[str, list[Manifest]]) -> None:
    for name, manifests in rendered.items():
        spec = read_clusters(INFRA)[name]
        for text in texts(manifests):
            assert not re.search(r"\b(REPOSITORY|REVISION|ENVIRONMENT)\b", text), text
        for application in of_kind(manifests, "Application").values():
            assert application["spec"]["source"]["repoURL"] == spec.repository
            assert (INFRA.parent / application["spec"]["source"]["path"] / "kustomization.yaml").exists()


def test_environments_differ_in_values_only(rendered: dict[str, list[Manifest]]) -> None:
    def normalized(name: str) -> Any:
        document = json.loads(json.dumps(rendered[name]))
        for manifest in document:
            if manifest["kind"] == "ApplicationSet":
                for generator in manifest["spec"]["generators"]:
                    for leaf in generator.get("matrix", {}).get("generators", [generator]):
                        leaf.get("list", {}).pop("elements", None)
                        leaf.get("git", {}).pop("requeueAfterSeconds", None)
        return json.loads(re.sub(rf"(?<![\w-]){name}(?![\w-])", "ENV", json.dumps(document)))

    assert normalized("local") == normalized("staging") == normalized("prod")


def test_the_local_cluster_can_do_without_add_ons_and_kfp(rendered: dict[str, list[Manifest]]) -> None:
    sets = of_kind(rendered["local"], "ApplicationSet")
    assert sets["addons"]["spec"]["generators"][0]["matrix"]["generators"][0]["list"]["elements"] == []
    assert sets["kfp"]["spec"]["generators"][0]["list"]["elements"] == []
    prod = of_kind(rendered["prod"], "ApplicationSet")
    assert prod["kfp"]["spec"]["generators"][0]["list"]["elements"] == [{"path": "infra/kfp/overlays/prod"}]


def test_no_template_chooses_its_project_and_use_cases_reach_nothing_of_the_cluster(
    rendered: dict[str, list[Manifest]],
) -> None:
    for manifests in rendered.values():
        projects = of_kind(manifests, "AppProject")
        for application_set in of_kind(manifests, "ApplicationSet").values():
            assert application_set["spec"]["template"]["spec"]["project"] in projects
            assert "project" not in application_set["spec"].get("templatePatch", "")
        assert projects["usecases"]["spec"]["clusterResourceWhitelist"] == []
        assert {d["namespace"] for d in projects["usecases"]["spec"]["destinations"]} == {"ml-*", "kubeflow"}
        refused = {(k["group"], k["kind"]) for k in projects["usecases"]["spec"]["namespaceResourceBlacklist"]}
        assert {("", "Secret"), ("rbac.authorization.k8s.io", "Role"), ("", "ResourceQuota")} <= refused
        assert "*" not in texts(projects["platform"]["spec"]["sourceRepos"])


def test_every_source_and_namespace_of_an_add_on_is_one_that_the_project_allows(
    rendered: dict[str, list[Manifest]],
) -> None:
    project = of_kind(rendered["prod"], "AppProject")["platform"]["spec"]
    namespaces = {d["namespace"] for d in project["destinations"]}
    for name, addon in read_addons(INFRA).items():
        assert addon.namespace in namespaces or addon.namespace.startswith("ml-"), name
        if not addon.source.path:
            repository = str(addon.source.repository)
            if repository.startswith("oci://"):
                repository = f"{repository}/{addon.source.chart}"
            assert repository in project["sourceRepos"], name
    steps = of_kind(rendered["prod"], "ApplicationSet")["addons"]["spec"]["strategy"]["rollingSync"]["steps"]
    tiers = [step["matchExpressions"][0]["values"][0] for step in steps]
    assert tiers == sorted(tiers)
    assert {addon.tier for addon in read_addons(INFRA).values()} <= set(tiers)


def test_what_others_need_comes_first(rendered: dict[str, list[Manifest]]) -> None:
    def wave(kind: str, name: str) -> int:
        annotations = of_kind(rendered["prod"], kind)[name]["metadata"].get("annotations", {})
        return int(annotations.get("argocd.argoproj.io/sync-wave", 0))

    projects = max(wave("AppProject", name) for name in ("platform", "usecases"))
    platform = [wave("ApplicationSet", name) for name in ("addons", "kfp")]
    assert projects < wave("Application", "policies") < min(platform)
    assert max(platform) < min(wave("ApplicationSet", name) for name in ("pipelines", "serving"))


def test_a_release_is_served_by_the_folder_it_lies_in(rendered: dict[str, list[Manifest]]) -> None:
    """One release.yaml per use case and environment, and the Application's name comes from the folder."""
    for name, manifests in rendered.items():
        serving = of_kind(manifests, "ApplicationSet")["serving"]["spec"]
        files = serving["generators"][0]["git"]["files"]
        assert files == [{"path": f"infra/usecases/*/envs/{name}/release.yaml"}]
        template = serving["template"]
        for text in (template["metadata"]["name"], template["spec"]["destination"]["namespace"]):
            assert ".path.segments 2" in text
            assert ".release" not in text
        values = template["spec"]["source"]["helm"]["valueFiles"]
        assert [v.rpartition("/")[2] for v in values] == ["values.yaml", "release.yaml"], "what is released wins"


def test_health_checks_use_no_library_of_lua() -> None:
    """Argo CD opens none; `string.sub` and `text:gsub` end in an error and unknown health."""
    checks = {
        key: lua
        for key, lua in yaml.safe_load((INFRA / "bootstrap/argocd/argocd-cm.yaml").read_text())["data"].items()
        if key.startswith("resource.customizations.health.")
    }
    assert {key.rpartition("_")[2] for key in checks} == {"Pipeline", "PipelineVersion", "FeatureStore"}
    for lua in checks.values():
        assert "return" in lua
        assert not re.search(r"\b(string|table|os|io|math)\.|:[a-z]+\(", lua)


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ({"conditions": [{"type": "PipelineVersionStatus", "status": "True", "message": "READY"}]}, "Healthy"),
        ({"conditions": [{"type": "PipelineVersionStatus", "status": "False", "message": "bad spec"}]}, "Degraded"),
        (None, "Healthy"),
    ],
)
def test_argo_cd_itself_judges_a_version(status: Manifest | None, health: str, tmp_path: Path) -> None:
    if not shutil.which("argocd"):
        pytest.skip("needs the program argocd")
    version: Manifest = {"apiVersion": "pipelines.kubeflow.org/v2beta1", "kind": "PipelineVersion"}
    version |= {"metadata": {"name": "v"}} | ({"status": status} if status else {})
    (tmp_path / "version.yaml").write_text(yaml.safe_dump(version))
    command = ["argocd", "admin", "settings", "resource-overrides", "health", str(tmp_path / "version.yaml")]
    command += ["--argocd-cm-path", str(INFRA / "bootstrap/argocd/argocd-cm.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert f"STATUS: {health}" in done.stdout, done.stderr


@pytest.mark.parametrize("name", CLUSTERS)
def test_policies_of_each_cluster_render(name: str, build: Callable[[Path], list[Manifest]]) -> None:
    manifests = build(INFRA / "clusters" / name / "policies")
    namespaces = of_kind(manifests, "Namespace")
    for folder in (INFRA / "usecases").iterdir():
        served = namespaces[f"ml-{folder.name.replace('_', '-')}"]
        assert served["metadata"]["labels"]["driftline.dev/part"] == "use-case", "stores know it by this label"
    for element in read_clusters(INFRA)[name].addons.elements:
        assert read_addons(INFRA)[element["addon"]].namespace in namespaces
    for policy in (m for m in manifests if m["kind"] == "NetworkPolicy"):
        assert policy["metadata"]["namespace"] in namespaces
    for binding in of_kind(manifests, "ValidatingAdmissionPolicyBinding").values():
        assert ("Deny" in binding["spec"]["validationActions"]) == (name != "local")


def test_schedules_travel_as_a_config_map_that_the_controller_finds(
    build: Callable[[Path], list[Manifest]], tmp_path: Path
) -> None:
    """Those that have a version: a use case that nothing was compiled for declares none, which is no fault."""
    shutil.copytree(INFRA / "usecases", tmp_path / "usecases")
    for path in (tmp_path / "usecases/flights/schedules").glob("*.yaml"):
        path.write_text(path.read_text() + "\nversion: flights-training-0123456789ab\n")
    pin(tmp_path)
    for folder in sorted((tmp_path / "usecases").iterdir()):
        maps = of_kind(build(folder), "ConfigMap")
        schedules = maps[f"{folder.name.replace('_', '-')}-schedules"]
        assert schedules["metadata"]["labels"]["driftline.dev/schedules"] == "true"
        assert schedules["metadata"]["namespace"] == "kubeflow"
        declared = {path.name: path.read_text() for path in (folder / "schedules").glob("*.yaml")}
        assert schedules.get("data", {}) == (declared if folder.name == "flights" else {})


def test_own_charts_render_with_the_values_of_each_environment(render: Callable[..., list[Manifest]]) -> None:
    digest = "sha256:" + "a" * 64
    for name, addon in read_addons(INFRA).items():
        if not addon.source.path or not (INFRA.parent / addon.source.path / "Chart.yaml").exists():
            continue
        built = (
            {"image": {"repository": "registry.example.com/driftline-cpu", "digest": digest}} if addon.images else {}
        )
        for environment in CLUSTERS:
            files = [INFRA / "addons" / name / file for file in ("values.yaml", f"values-{environment}.yaml")]
            assert render(addon.source.path.removeprefix("charts/"), *files, built, namespace=addon.namespace)


def test_a_release_renders_with_the_values_of_each_use_case(
    render: Callable[..., list[Manifest]], tmp_path: Path
) -> None:
    for folder in sorted((INFRA / "usecases").iterdir()):
        release = Release(
            use_case=folder.name,
            model_version=3,
            model="a" * 64,
            bento=ReleasedBento(tag=f"{folder.name}:abc", digest="b" * 64, uri="s3://models/bentos/model.tar"),
            image=ServingImage(repository="registry.example.com/driftline-serve", digest="sha256:" + "c" * 64),
            verdict="d" * 64,
            run_id="run-1",
        )
        (tmp_path / "release.yaml").write_text(render_release(release))
        for environment in CLUSTERS:
            values = folder / "envs" / environment / "values.yaml"
            manifests = render("bento-service", values, tmp_path / "release.yaml", name=folder.name)
            assert "registry.example.com/driftline-serve@sha256:" + "c" * 64 in images_of(manifests)


# Kubeflow Pipelines


def with_digests(tmp_path: Path) -> tuple[Path, Lock]:
    """Copy the tree and lock every image to a digest of its own."""
    root = tmp_path / "infra"
    shutil.copytree(INFRA, root)
    addons, kfp = read_addons(root), read_kfp_images(root)
    locked = {image: LockedImage(digest=f"sha256:{number:064x}") for number, image in enumerate(sorted(kfp.all()), 1)}
    lock = Lock(images=locked)
    write_lock(root, lock, addons, kfp)
    return root, lock


def images_of(manifests: list[Manifest]) -> list[str]:
    """Return every text of the objects that names an image: fields `image`, and registry/path wherever it stands."""
    found: list[str] = []
    registry = re.compile(r"^(docker\.io|gcr\.io|ghcr\.io|quay\.io|registry\.k8s\.io|mcr\.microsoft\.com)/\S+$")

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                walk(item, name)
        elif isinstance(value, list):
            for item in value:
                walk(item, key)
        elif isinstance(value, str) and (key == "image" or registry.match(value)):
            found.append(value)

    for manifest in manifests:
        if manifest["kind"] != "CustomResourceDefinition":
            walk(manifest, "")
    return found


def test_without_digests_kfp_does_not_render_and_the_error_says_what_to_do(
    tmp_path: Path, build: Callable[[Path], list[Manifest]]
) -> None:
    root = tmp_path / "infra"
    shutil.copytree(INFRA, root)
    write_lock(root, Lock(), read_addons(root), read_kfp_images(root))
    (root / "kfp/base/kustomization.yaml").write_text("kind: Kustomization\nresources: []\n")
    with pytest.raises(ValueError, match=REFUSAL):
        build(root / "kfp/components/digests")
    assert not list(root.glob("addons/cert-manager/digests.yaml"))


def test_the_component_names_every_image_and_no_tag(tmp_path: Path) -> None:
    root, lock = with_digests(tmp_path)
    component = yaml.safe_load((root / "kfp/components/digests/kustomization.yaml").read_text())
    pinned = {f"{i['name']}@{i['digest']}" for i in component["images"]}
    patched = json.dumps([yaml.safe_load(patch["patch"]) for patch in component["patches"]])
    for image in read_kfp_images(root).all():
        by_digest = f"{image.rpartition(':')[0]}@{lock.images[image].digest}"
        assert by_digest in pinned or by_digest in patched, image
    assert "newTag" not in json.dumps(component)
    assert not re.search(r"(kubeflow|argoproj)/[a-z-]+:", patched)
    assert len(component["images"]) + len(component["patches"]) == 15


def test_the_overlay_deletes_every_secret_and_narrows_the_runner() -> None:
    deleted = list(yaml.safe_load_all((INFRA / "kfp/components/harden/delete-secrets.yaml").read_text()))
    assert {d["metadata"]["name"] for d in deleted} == {"mlpipeline-minio-artifact", "mysql-secret"}
    assert all(d["$patch"] == "delete" for d in deleted)
    for path in (INFRA / "kfp").rglob("*"):
        if path.is_file():
            assert "minio123" not in path.read_text()
            assert not re.search(r"stringData|secretGenerator", path.read_text()), path


def test_the_runner_may_do_what_the_chart_says(render: Callable[..., list[Manifest]]) -> None:
    values = yaml.safe_load((INFRA / "addons/pipelines/values.yaml").read_text()) | {"runner": {"create": True}}
    values |= {"image": {"repository": "registry.example.com/driftline-cpu", "digest": "sha256:" + "a" * 64}}
    chart = of_kind(render("pipelines", values, namespace="kubeflow"), "Role")["pipeline-runner"]["rules"]
    patch = yaml.safe_load((INFRA / "kfp/components/harden/runner-role.yaml").read_text())[0]["value"]

    def rules(given: list[Manifest]) -> list[str]:
        return sorted(json.dumps(rule, sort_keys=True) for rule in given)

    assert rules(patch) == rules(chart)


@pytest.mark.parametrize("name", CLUSTERS)
def test_kfp_rendered_from_its_own_manifests(
    name: str, tmp_path: Path, build: Callable[[Path], list[Manifest]], check: Callable[[list[Manifest]], None]
) -> None:
    """Needs a copy of KFP's manifests whose references to Argo Workflows are local: DRIFTLINE_KFP_BASE names it."""
    base = os.environ.get("DRIFTLINE_KFP_BASE", "")
    if not base:
        pytest.skip("needs KFP's manifests: let DRIFTLINE_KFP_BASE name a folder that holds manifests/kustomize")
    root, lock = with_digests(tmp_path)
    shutil.copytree(base, tmp_path / "base", symlinks=True)
    remote = root / "kfp/base/kustomization.yaml"
    text, replaced = KFP_REMOTE.subn(r"../../../base/\1", remote.read_text())
    assert replaced == 2
    remote.write_text(text)
    manifests = build(root / "kfp/overlays" / name)
    assert not of_kind(manifests, "Secret")
    images = images_of(manifests)
    assert len(images) >= 18
    assert not [image for image in images if not re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", image)]
    assert {image.rpartition("@")[2] for image in images} == {locked.digest for locked in lock.images.values()}
    config = json.loads(
        next(m for n, m in of_kind(manifests, "ConfigMap").items() if n.startswith("kfp-api-config"))["data"][
            "config.json"
        ]
    )
    assert config["plugins"]["mlflow"]["endpoint"] == "http://mlflow.driftline-system:5000"
    assert "SecretAccessKey" not in json.dumps(config)
    assert not [
        n for n in of_kind(manifests, "Deployment") if n in ("mysql", "cache-server", "cache-deployer-deployment")
    ]
    mounts = of_kind(manifests, "Deployment")["ml-pipeline"]["spec"]["template"]["spec"]["containers"][0][
        "volumeMounts"
    ]
    assert any(mount["mountPath"] == "/config/config.json" for mount in mounts)
    check([m for m in manifests if m["kind"] != "CustomResourceDefinition"])


def test_the_tree_as_it_is_lacks_nothing_but_digests() -> None:
    findings = check_tree(INFRA, [])
    assert not [f for f in findings if "no digest of" not in f.what]
    assert not check_tree(INFRA, ["local"])
