#!/usr/bin/env bash
# Runs cargo-deny with the arguments given, from PATH or, built once, from ${STRONGROOM_CACHE:-.cache}.
set -euo pipefail

version=0.20.2
cache=${STRONGROOM_CACHE:-.cache}/cargo-deny-$version
if command -v cargo-deny >/dev/null; then
    deny=cargo-deny
else
    deny=$cache/bin/cargo-deny
    # Unoptimised: it takes a third of the time to build, and a second to run.
    [ -x "$deny" ] || cargo install --quiet --locked --debug --root "$cache" "cargo-deny@$version"
fi
exec "$deny" "$@"
