"""From one environment to the next by pull request: the same bytes, and all that a reviewer needs to say yes."""

from components.core.errors import ConfigError, DataError, GateRefused
from components.core.git import clone, fetch, read_text
from components.core.git_signing import committer
from components.core.ledger.engine import open_ledger
from components.core.ledger.releases import read_release
from components.core.release import release_path
from components.core.release_branch import known_environment, look, release_message, require_head
from components.core.settings import Settings
from pipelines.releases.branches import Change, ask, push_branch
from pipelines.releases.report import review


def propose_release(settings: Settings, use_case: str, source: str, target: str) -> Change:
    """Propose that environment `target` serves what `source` does: branch `release/<target>/<use case>/<version>`.

    With a forge a pull request is opened or brought up to date; without one the review is in the commit's message.
    Raises ConfigError for unknown environments, DataError when `source` has no release or the ledger does not know it,
    GateRefused for a version that was taken back in `target`, GitFailed.
    """
    known_environment(source, "--from")
    known_environment(target, "--to")
    if source == target:
        raise ConfigError("a release goes to another environment", measured=f"--from {source} --to {target}")
    engine, path = open_ledger(settings.ledger_url), release_path(use_case, target)
    with clone(settings) as made, committer(settings) as by:
        head = require_head(made, fetch(made))
        offered, served = (look(made, head, use_case, environment) for environment in (source, target))
        text = read_text(made, head, release_path(use_case, source))
        if offered.release is None or text is None:
            raise DataError(f"nothing of {use_case} is released to {source}", next_step="driftline release show")
        version = offered.release.model_version
        known = {"use_case": use_case, "environment": target, "version": version, "replaced": served.version}
        if served.release == offered.release:
            return Change(**known, state="unchanged", commit=served.commit)
        if offered.release.run_id in served.released and served.version != version:
            raise GateRefused(
                f"version {version} of {use_case} was released to {target} before and taken back",
                measured=f"{target} serves version {served.version}",
                allowed="a version that was not taken back there",
                next_step=f"revert the revert in {path} if that was wrong",
            )
        kept = read_release(engine, use_case, version)
        if kept is None or kept.release != offered.release:
            raise DataError(
                f"{source} serves a release of {use_case} that the ledger did not promote like this",
                measured=f"version {version} at commit {offered.commit[:12]}",
                next_step="driftline release sync, or restore release.yaml with `git revert`",
            )
        before = read_release(engine, use_case, served.version) if served.version is not None else None
        body = review(kept, before, served.version, source=source, target=target)
        branch = f"release/{target}/{use_case}/{version}"
        message = release_message(offered.release, target, "" if settings.forge_url else body)
        tip = push_branch(made, by, head, branch, path=path, text=text, message=message)
        title = message.partition("\n")[0]
        # A squashed merge keeps the body as its message, and the history must say what was released.
        said = f"{body}\n\n" + release_message(offered.release, target).partition("\n\n")[2]
        url, _ = ask(settings, branch, tip, title=title, body=said, again=True)
        return Change(**known, state="proposed", commit=tip, branch=branch, pull_request=url, body=body)
