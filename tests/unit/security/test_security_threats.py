"""Every proof that docs/security.md names exists, and every threat has one or says that it has none."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([STRIDE](?:, [STRIDE])*) \|(.*)\|$", re.MULTILINE)


def proofs() -> list[tuple[str, str]]:
    """Return file and function of each test that is named; a name without a file is of the file before it."""
    found, path = [], ""
    for named, function in re.findall(r"`((?:tests/[\w/]+\.py)?)::(test_\w+)`", PAGE):
        path = named or path
        found.append((path, function))
    return found


@pytest.mark.parametrize(("path", "function"), proofs())
def test_the_proof_of_a_threat_exists(path: str, function: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^def {function}\(", text, re.MULTILINE), f"{path} has no {function}"


def test_threats_of_each_kind_have_an_answer() -> None:
    rows = [(kinds, [cell.strip() for cell in cells.split(" | ")]) for kinds, cells in ROW.findall(PAGE)]
    assert len(rows) >= 20
    assert {kind for kinds, _ in rows for kind in kinds.split(", ")} == set("STRIDE")
    assert [cells for _, cells in rows if len(cells) != 3 or not all(cells)] == []
    open_ones = [cells for _, cells in rows if cells[2] == "–"]
    assert len(proofs()) >= len(rows) - len(open_ones) - 3
    assert len(open_ones) <= 3, "what has no proof is listed below What is left"


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE):
        if not target.startswith("http"):
            assert (ROOT / "docs" / target).exists(), target
