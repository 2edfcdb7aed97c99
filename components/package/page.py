"""The probe's page in Markdown."""

from components.core.sections import Package
from components.core.serving import ServingSpec
from components.package.probe import Measurements


def render(
    spec: ServingSpec, digest: str, found: Measurements, config: Package, archive_bytes: int, *, signed_by: str
) -> str:
    """Return what was measured beside what is allowed."""
    limits = [
        ("Largest difference to the native model", found.golden_difference, config.tolerance, "{:.1e}"),
        ("Largest difference, lookup by key to own features", found.online_difference, config.tolerance, "{:.1e}"),
        ("p99 of a lookup by key, ms", found.p99_ms, config.max_p99_ms, "{:.1f}"),
        ("Memory of all processes, MB", found.rss_mb, config.max_rss_mb, "{:.0f}"),
    ]
    facts = [
        ("p50 of a lookup by key, ms", f"{found.p50_ms:.1f}"),
        ("Requests timed, one connection", str(found.requests)),
        ("Golden rows replayed", str(found.golden_rows)),
        ("Training rows looked up by key", str(found.online_rows)),
        ("Import and boot, s", f"{found.boot_seconds:.1f}"),
        ("Archive, MB", f"{archive_bytes / 1e6:.1f}"),
        ("Signed by key", f"`{signed_by[:12]}`" if signed_by else "unsigned"),
    ]
    lines = [
        f"# Probe of {spec.use_case}, version {spec.version}",
        "",
        f"Bento `{digest[:12]}`, model `{spec.model[:12]}`, booted as a server on this machine.",
        "",
        "| | measured | allowed | |",
        "|---|---:|---:|---|",
        *(_limit(*limit) for limit in limits),
        *(f"| {what} | {measured} | | |" for what, measured in facts),
        "",
    ]
    return "\n".join(lines)


def _limit(what: str, measured: float, allowed: float, form: str) -> str:
    verdict = "ok" if measured <= allowed else "**above**"
    return f"| {what} | {form.format(measured)} | {form.format(allowed)} | {verdict} |"
