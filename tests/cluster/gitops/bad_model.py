"""A model that should never have been promoted: it fails half of its requests."""

import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path

from components.core.bundle import release_of
from components.core.digests import file_digest
from components.core.ledger.bentos import record_bento
from components.core.ledger.champions import Candidate, promote
from components.core.ledger.engine import open_ledger
from components.core.ledger.releases import read_release
from components.core.ledger.runs import claim_run
from components.core.mirror import mirror_if_reachable
from components.core.object_store import local_path, publish
from components.core.release import Release
from components.core.settings import Settings
from components.core.tracking import register_version, start_run


def promote_a_bad_model(stores: Settings, good: Release, archive: Path) -> Release:
    """Promote a version that fails half of its requests, as a step would that ends before its commit."""
    ledger, run = open_ledger(stores.ledger_url), "flights-bad"
    kept, of_good = failing_bento(stores, good, archive), read_release(ledger, good.use_case, good.model_version)
    assert of_good
    version = register_version(stores, good.use_case, start_run(stores, good.use_case, run))
    bento = {"tag": "flights:3-bad", "digest": kept.stem, "uri": good.bento.uri.replace(good.bento.digest, kept.stem)}
    bento_of = good.bento.model_copy(update=bento)
    bad = good.model_copy(update={"model_version": version, "run_id": run, "bento": bento_of})
    assert claim_run(ledger, run, run, "training", good.use_case)
    record_bento(ledger, release_of(good.use_case, version, bad.model), bad.bento.digest, bad.bento.uri)
    candidate = Candidate(
        model=good.use_case,
        version=version,
        digest=bad.model,
        bento_digest=bad.bento.digest,
        bento_uri=bad.bento.uri,
        run_id=run,
        verdict_digest=bad.verdict,
        as_of=datetime.now(UTC),
    )
    keep = of_good.model_copy(update={"release": bad})
    assert promote(ledger, candidate, good.model_version, keep) == "promoted"
    mirror_if_reachable(stores, good.use_case)
    return bad


def failing_bento(stores: Settings, good: Release, target: Path) -> Path:
    """Publish a Bento that fails every second lookup, with a version of its own, and return its file by digest."""
    version = good.bento.tag.partition(":")[2]
    archive = local_path(stores, good.bento.uri)
    edits = {
        "bento.yaml": (f"version: {version}", "version: 3-bad"),
        "src/components/serve/service.py": (
            "            values = dict(vars(request))\n",
            "            if time.time_ns() // 1000 % 2:\n"
            '                raise RuntimeError("a bug")\n'
            "            values = dict(vars(request))\n",
        ),
    }
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for member in old.getmembers():
            content = old.extractfile(member)
            if content is None:
                new.addfile(member)
                continue
            body = content.read()
            edit = edits.get(member.name.removeprefix("./"))
            if edit:
                assert edit[0].encode() in body, member.name
                body = body.replace(edit[0].encode(), edit[1].encode())
                member.size = len(body)
            new.addfile(member, io.BytesIO(body))
    kept = stores.bentos / f"{file_digest(target)}.tar"
    kept.write_bytes(target.read_bytes())
    publish(stores, kept)
    return kept
