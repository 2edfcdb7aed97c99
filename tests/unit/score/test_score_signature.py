"""Whoever loads the champion asks for its signature first: scoring, the gate, lineage, one answer."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from components.core.errors import ConfigError, DriftlineError, PackagingFailed, Untrusted
from components.core.ledger.champions import read_champion
from components.core.ledger.engine import open_ledger
from components.core.model_signature import signature_path
from components.core.object_store import local_path, publish
from components.core.settings import Settings
from components.evaluate.champion import fetch_champion
from components.package.signing import sign_archive
from components.score.score import score
from pipelines.answer import answer_once
from pipelines.catalog import read_case
from pipelines.lineage.model import bento_link, gather

ROOT = Path(__file__).parents[3]


def write_keys(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "own")


@pytest.fixture
def shared(settings: Settings, object_store: str) -> Settings:
    return settings.model_copy(update={"object_store_url": object_store})


def kept(settings: Settings) -> Path:
    champion = read_champion(open_ledger(settings.ledger_url), "rides")
    assert champion is not None
    return local_path(settings, champion.bento_uri)


def pod_of(settings: Settings, home: Path, key: Path) -> Settings:
    """Return the settings of a step with an empty disk that is told whom to trust."""
    return settings.model_copy(update={"home": home, "model_verifying_key": key})


def read_by(reader: str, settings: Settings, scoring_set: Path, folder: Path) -> None:
    """Let one reader load the champion, as its step or command does; `answer` boots the archive itself."""
    if reader == "scoring":
        score(settings, "rides", scoring_set=scoring_set, output=folder / "predictions")
    elif reader == "gate":
        fetch_champion(settings, "rides", folder / "champion")
    else:
        case = read_case(ROOT / "feature_repo", "wind").use_case
        answer_once(settings, case.model_copy(update={"name": "rides"}))


def change(archive: Path) -> None:
    """Change one byte of the model inside a tar, which stays a tar."""
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)


@pytest.mark.s3
def test_a_signed_champion_scores(
    shared: Settings,
    crown: Callable[..., Any],
    scoring_set: Callable[..., Path],
    keys: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    crown(shared, 1)
    sign_archive(shared.model_copy(update={"model_signing_key": keys[0]}), kept(shared))
    pod = pod_of(shared, tmp_path / "pod", keys[1])
    assert score(pod, "rides", scoring_set=scoring_set(), output=tmp_path / "predictions").days_scored == 3


@pytest.mark.s3
@pytest.mark.parametrize("reader", ["scoring", "gate", "answer"])
@pytest.mark.parametrize(
    ("tamper", "error", "said"),
    [
        ("archive", PackagingFailed, "not the one that was probed"),
        ("signature", Untrusted, "does not hold|cannot be read"),
        ("no signature", Untrusted, "no signature"),
        ("other key", Untrusted, "signed with another key"),
        ("other champion", Untrusted, "signature is that of another archive"),
        ("no key", ConfigError, "no public key for models"),
    ],
)
def test_what_was_tampered_with_in_the_store_is_not_loaded(
    reader: str,
    tamper: str,
    error: type[DriftlineError],
    said: str,
    shared: Settings,
    crown: Callable[..., Any],
    scoring_set: Callable[..., Path],
    keys: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    crown(shared, 1)
    signing = shared.model_copy(update={"model_signing_key": keys[0]})
    first = kept(shared)
    if tamper == "other key":
        signing = shared.model_copy(update={"model_signing_key": write_keys(tmp_path, "other")[0]})
    if tamper != "no signature":
        sign_archive(signing, first)
    if tamper == "archive":
        change(first)
        publish(shared, first)
    if tamper == "signature":
        change(signature_path(first))
        publish(shared, signature_path(first))
    if tamper == "other champion":
        # Who writes ledger and bucket names an archive of his own, under the signature of a good one.
        crown(shared, 2)
        shutil.copy(signature_path(first), signature_path(kept(shared)))
        publish(shared, signature_path(kept(shared)))
    pod = pod_of(shared, tmp_path / "pod", tmp_path / "not mounted" if tamper == "no key" else keys[1])
    with pytest.raises(error, match=said):
        read_by(reader, pod, scoring_set(), tmp_path)
    assert not list((tmp_path / "pod").glob("predictions/**/*.parquet"))
    assert not (tmp_path / "predictions").exists()


def test_lineage_names_the_key_and_loads_nothing_that_is_not_signed(
    settings: Settings, crown: Callable[..., Any], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    crown(settings, 1)
    champion = read_champion(open_ledger(settings.ledger_url), "rides")
    assert champion is not None
    asked = settings.model_copy(update={"model_verifying_key": keys[1]})
    model = ("rides", 1, champion.digest)
    unsigned = gather(asked, open_ledger(settings.ledger_url), model, tmp_path / "unsigned")
    assert (unsigned.folder, unsigned.card) == (None, None)
    assert not (tmp_path / "unsigned").exists()
    assert (bento_link(unsigned).state, "has no signature" in bento_link(unsigned).note) == ("broken", True)
    signer = sign_archive(settings.model_copy(update={"model_signing_key": keys[0]}), kept(settings))
    signed = gather(asked, open_ledger(settings.ledger_url), model, tmp_path / "signed")
    assert signed.folder == tmp_path / "signed"
    assert (bento_link(signed).state, bento_link(signed).details["signed_by"]) == ("verified", signer)
    change(kept(settings))
    changed = gather(asked, open_ledger(settings.ledger_url), model, tmp_path / "changed")
    assert changed.folder is None
    assert bento_link(changed).state == "broken"
