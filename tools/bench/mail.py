#!/usr/bin/env python3
"""Measures how fast mails are split and made text, beside an older version, in one process and in turns.

    tools/bench/mail.py DIR...                  # the mails in these folders, beside the version before this reader
    tools/bench/mail.py --before v1.2 DIR...    # beside another

Takes `src/` of the older version out of git, builds the modules that understand mail of both into one program (they need few
dependencies, so this takes a minute, not a whole build), and prints what the fastest of the rounds took, their ratio, and how many
bytes both versions decode. Only Python's standard library is used.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
# Older versions also use the last module and the last two dependencies.
MODULES = ("mail", "mime", "text", "mbox")
DEPENDENCIES = ("base64", "chardetng", "encoding_rs", "html5gum", "jiff", "memchr", "mail-parser", "thiserror")
# The last version in which splitting found attachments by itself.
BEFORE = "99747bb"


def make_crate(crate: Path, tree: Path) -> None:
    """Writes a crate of the modules of one version."""
    source = tree / "src"
    # They once lay in src/ itself.
    in_content = (source / "content" / "mail.rs").exists()
    shutil.rmtree(crate, ignore_errors=True)
    crate.mkdir(parents=True)
    lines = [f"pub mod {name};" for name in MODULES]
    if in_content:
        (crate / "content").symlink_to(source / "content")
        lines = ["pub mod content {", *lines, "}", "pub use content::*;"]
    else:
        for name in MODULES:
            (crate / f"{name}.rs").symlink_to(source / f"{name}.rs")
            if (source / name).exists():
                (crate / name).symlink_to(source / name)
    (crate / "lib.rs").write_text("\n".join(["#![allow(dead_code)]", *lines, ""]))
    table = tomllib.loads((tree / "Cargo.toml").read_text())["workspace"]["dependencies"]
    dependencies = []
    for name in filter(table.__contains__, DEPENDENCIES):
        wanted = table[name] if isinstance(table[name], dict) else {"version": table[name]}
        fields = ", ".join(f"{key.replace('_', '-')} = {str(value).lower() if isinstance(value, bool) else repr(value)}"
                           for key, value in wanted.items())
        dependencies.append(f"{name} = {{ {fields} }}")
    (crate / "Cargo.toml").write_text("\n".join([
        "[package]", f'name = "{crate.name}"', 'version = "0.0.0"', 'edition = "2024"',
        "[lib]", 'path = "lib.rs"', "[dependencies]", *dependencies, "",
    ]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default=BEFORE, metavar="REVISION")
    parser.add_argument("--only", choices=("split", "text", "facts", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("folders", nargs="+", type=Path)
    arguments = parser.parse_args()

    work = PROJECT / "target" / "bench-mail"
    shutil.rmtree(work / "old", ignore_errors=True)
    (work / "old").mkdir(parents=True)
    archive = subprocess.run(["git", "archive", arguments.before, "src", "Cargo.toml"], cwd=PROJECT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", work / "old"], input=archive.stdout, check=True)
    make_crate(work / "before", work / "old")
    make_crate(work / "after", PROJECT)
    shutil.copy(PROJECT / "Cargo.lock", work / "Cargo.lock")
    (work / "Cargo.toml").write_text("\n".join([
        "[workspace]", 'members = ["before", "after"]',
        "[package]", 'name = "bench-mail"', 'version = "0.0.0"', 'edition = "2024"',
        "[[bin]]", 'name = "bench-mail"', f'path = "{PROJECT / "tools/bench/mail.rs"}"',
        "[dependencies]", 'before = { path = "before" }', 'after = { path = "after" }',
        "[profile.release]", "debug = 1", "",
    ]))
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=work, check=True)
    folders = [folder.resolve() for folder in arguments.folders]
    subprocess.run([work / "target" / "release" / "bench-mail", str(arguments.rounds), arguments.only, *folders], check=True)


if __name__ == "__main__":
    main()
