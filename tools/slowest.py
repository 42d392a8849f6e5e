#!/usr/bin/env python3
"""Lists the slowest tests of the last run of cargo-nextest (`make test`, or `cargo nextest run`).

    tools/slowest.py [NUMBER]       # twenty, unless a number is given
"""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

REPORT = Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "nextest/default/junit.xml"


def main() -> int:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    if not REPORT.exists():
        print(f"Error: there is no report at {REPORT}\nHint: run `make test` with cargo-nextest installed", file=sys.stderr)
        return 1
    suites = ElementTree.parse(REPORT).getroot()
    tests = [(float(case.get("time", 0)), case.get("classname"), case.get("name")) for case in suites.iter("testcase")]
    tests.sort(reverse=True)
    for seconds, program, name in tests[:number]:
        print(f"{seconds:8.1f} s  {program}  {name}")
    passed_s = float(suites.get("time", 0))
    print(f"{len(tests)} tests took {sum(test[0] for test in tests):.0f} s, side by side {passed_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
