#!/usr/bin/env python3
"""Writes the licences of everything that is linked into the program to standard output.

    tools/package/licences.py > THIRD-PARTY.txt

Most of them ask that their text goes with a binary. Each text stands once, below the names of all packages that bring it.
A package without a file of its own is listed by the name of its licence. Only Python's standard library is used.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FILES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")


def linked_packages() -> list[dict]:
    """Returns the packages that `strongroom` depends on when it runs: no build tools, and none of our own."""
    host = subprocess.run(["rustc", "--print", "host-tuple"], check=True, capture_output=True, text=True).stdout.strip()
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", host]
    metadata = json.loads(subprocess.run(command, cwd=PROJECT, check=True, capture_output=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    open_ids = [key for key, package in packages.items() if package["name"] == "strongroom"]
    seen = set(open_ids)
    while open_ids:
        for dependency in nodes[open_ids.pop()]["deps"]:
            runs = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            macro = any("proc-macro" in target["kind"] for target in packages[dependency["pkg"]]["targets"])
            if runs and not macro and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                open_ids.append(dependency["pkg"])
    return sorted((packages[key] for key in seen if packages[key]["source"]), key=lambda package: package["name"])


def main() -> int:
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for package in linked_packages():
        name = f"{package['name']} {package['version']} ({package['license'] or 'see its licence file'})"
        folder = Path(package["manifest_path"]).parent
        files = sorted(path for path in folder.iterdir() if path.is_file() and path.name.upper().startswith(FILES))
        for path in files:
            texts[path.read_text(encoding="utf-8", errors="replace").strip()].append(name)
        if not files:
            texts[""].append(name)
    named_only = texts.pop("", [])
    print("Strongroom is linked with the packages below. Their licences follow.")
    print("\nThese bring no licence file, but name their licence:\n")
    print("\n".join(f"  {name}" for name in named_only))
    for text, names in texts.items():
        print("\n" + "=" * 80 + "\n" + "\n".join(dict.fromkeys(names)) + "\n" + "-" * 80 + f"\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
