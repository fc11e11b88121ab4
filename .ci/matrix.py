"""Fill CONTRIBUTING.md's table of scorers on the loaded model × families, from the results of the matrix test.

    .venv/bin/python .ci/matrix.py               runs tests/host/test_matrix.py and fills the table
    .venv/bin/python .ci/matrix.py --check       change nothing; code 1 when CONTRIBUTING.md is out of date

The ComfyUI is the one that the tests find (LATENT_CRITIC_COMFYUI names another).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

from readme import fill

ROOT = Path(__file__).resolve().parent.parent
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
TEST = "tests/host/test_matrix.py"


def outcomes(results: Path) -> dict[tuple[str, str], str]:
    """Every pair (scorer, family) in JUnit's file: ``yes``, the reason that the user is told, or a failure."""
    found = {}
    for case in ElementTree.parse(results).getroot().iter("testcase"):
        family, _, scorer = case.get("name", "").partition("[")[2].rstrip("]").partition("-")
        told = {item.get("name"): item.get("value") for item in case.iter("property")}
        failed = case.find("failure") is not None or case.find("error") is not None
        found[scorer, family] = "FAILS" if failed else str(told.get("outcome"))
    return found


def table(found: Mapping[tuple[str, str], str]) -> str:
    """One row per family, one column per scorer; reasons as notes below."""
    scorers, families = (list(dict.fromkeys(pair[place] for pair in found)) for place in (0, 1))
    notes: dict[str, str] = {}
    lines = ["| family | " + " | ".join(scorers) + " |", "|---|" + ":-:|" * len(scorers)]
    for family in families:
        cells = []
        for scorer in scorers:
            outcome = found[scorer, family]
            general = outcome.replace(f" of {family.partition('_schnell')[0]}", " of this family")
            cells.append(outcome if outcome in ("yes", "FAILS") else notes.setdefault(general, "abcdefgh"[len(notes)]))
        lines.append(f"| {family} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"({letter}) “{text}”" for text, letter in notes.items())])


def main() -> int:
    """Run the test, fill the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.xml")
        pytest = Path(sys.executable).with_name("pytest")
        code = subprocess.run(
            [str(pytest), TEST, "-q", "-o", "junit_family=xunit1", f"--junitxml={results}"], cwd=ROOT, check=False
        ).returncode
        if not results.is_file():
            return code
        filled = fill(CONTRIBUTING.read_text(encoding="utf-8"), "families", table(outcomes(results)))
    if arguments.check:
        return int(filled != CONTRIBUTING.read_text(encoding="utf-8")) or code
    CONTRIBUTING.write_text(filled, encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
