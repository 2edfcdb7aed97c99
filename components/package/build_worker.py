"""A process of its own that builds one Bento: order as JSON on standard input, tar at the ordered path."""

import json
import sys
from typing import Any


def build(order: dict[str, Any]) -> None:
    """Build and export a Bento as the order says."""
    import bentoml

    bento = bentoml.bentos.build(
        service=order["service"],
        name=order["name"],
        version=order["version"],
        build_ctx=order["context"],
        labels=order["labels"],
        # Pinned already; locking again would ask a package index and write its address into the Bento.
        python={"packages": order["packages"], "lock_packages": False},
    )
    # The default format is xz: minutes instead of a fraction of a second for a large model.
    bentoml.bentos.export_bento(bento.tag, order["archive"], output_format="tar")


if __name__ == "__main__":
    build(json.load(sys.stdin))
