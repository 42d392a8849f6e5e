#!/usr/bin/env bash
# Unpacks restic of Debian 13 into a folder, as Debian 12 has an old one. Prints the folder of the program.
#
#   tools/bench/restic.sh .cache/restic
#
# Nothing is installed: the package has one program that needs no library. It comes from the servers that this system's
# own packages come from, and apt checks its signatures.
set -euo pipefail

folder=$(mkdir -p "$1" && cd "$1" && pwd)
[ ! -x "$folder/usr/bin/restic" ] || { echo "$folder/usr/bin"; exit 0; }

server=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -n "$server" ] || { echo "Error: apt knows no server of Debian's packages; run \`apt-get update\` first" >&2; exit 1; }

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
echo "deb [signed-by=$keys] $server trixie main" >"$temporary/sources.list"
apt=(apt-get -qq -o Dir::Etc::sourcelist="$temporary/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State::lists="$temporary/lists" -o Dir::Cache="$temporary/cache" -o APT::Sandbox::User=root)
mkdir -p "$temporary/lists/partial" "$temporary/cache/archives/partial"
"${apt[@]}" update >&2
(cd "$temporary" && "${apt[@]}" download restic >&2)
dpkg-deb --extract "$temporary"/restic_*.deb "$folder"
echo "$folder/usr/bin"
