"""Read at start-up by the server that test_images_serving boots: it lacks packages and writes down what it imports."""

import json
import os
import sys
import threading
import time
from pathlib import Path


class Absent:
    """Finder that knows no module of the packages that an image lacks."""

    def __init__(self, absent: list[str]) -> None:
        self.absent = frozenset(absent)

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] in self.absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def record(folder: Path) -> None:
    while True:
        time.sleep(0.5)
        loaded = sorted({name.partition(".")[0] for name in list(sys.modules)})
        temporary = folder / f".{os.getpid()}"
        temporary.write_text(json.dumps(loaded), encoding="utf-8")
        temporary.replace(folder / f"{os.getpid()}.json")


if "DRIFTLINE_TEST_ABSENT" in os.environ:
    order = json.loads(Path(os.environ["DRIFTLINE_TEST_ABSENT"]).read_text(encoding="utf-8"))
    sys.meta_path.insert(0, Absent(order["absent"]))  # type: ignore[arg-type]
    threading.Thread(target=record, args=(Path(order["record"]),), daemon=True).start()
