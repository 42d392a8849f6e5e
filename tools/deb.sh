#!/usr/bin/env bash
# Runs cargo-deb with the arguments given, from PATH or, built once, from ${STRONGROOM_CACHE:-.cache}.
set -euo pipefail

version=3.8.0
cache=${STRONGROOM_CACHE:-.cache}/cargo-deb-$version
if command -v cargo-deb >/dev/null; then
    deb=cargo-deb
else
    deb=$cache/bin/cargo-deb
    # Unoptimised, and with xz from the system: it takes a minute to build.
    [ -x "$deb" ] || cargo install --quiet --locked --debug --no-default-features --root "$cache" "cargo-deb@$version"
fi
exec "$deb" "$@"
