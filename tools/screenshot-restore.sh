#!/usr/bin/env bash
# Drops mails from a snapshot into the mount's restore folder in two file managers that have no screen, and takes pictures of it:
#
#   tools/screenshot-restore.sh [FOLDER]     docs/images unless given: restore-thunar.png, restore-pcmanfm.png
#
# Thunar and PCManFM copy a folder of mails into the mailbox of another user of a simulated organisation. The script ends well only if
# each of them stands there once. Nothing but the simulator and the file managers' screen runs as root. Needs the release binaries (STRONGROOM and
# SIMULATOR name others), root, /dev/fuse, and thunar, pcmanfm, xvfb, xdotool, imagemagick and dbus (`make screenshot` installs them).
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(dirname "$tools")
strongroom=$(realpath "${STRONGROOM:-$project/target/release/strongroom}")
simulator=$(realpath "${SIMULATOR:-$project/target/release/strongroom-simulator}")
pictures=$(realpath -m "${1:-$project/docs/images}")
at=/mnt/backup

# shellcheck source=tools/screen.sh
. "$tools/screen.sh"
screen='' manager='' simulating=''
leave() {
    for pid in $manager $screen $simulating; do kill "$pid" 2>/dev/null && wait "$pid" || true; done
    umount "$demo/home/gvfs" 2>/dev/null || true
    fusermount3 -u "$at" 2>/dev/null || umount -l "$at" 2>/dev/null || true
    rmdir "$at" || true
    rm -rf --one-file-system "$demo"
}
# A path that fits into a picture.
mkdir "$at" || fail "$at is there already"
trap leave EXIT
chown nobody "$at"

mkdir "$demo/work"
"$tools/corpus-spamassassin.sh" "$demo/corpus" >/dev/null
"$simulator" --port 0 --users 2 --corpus "$demo/corpus" > "$demo/strongroom.toml" &
simulating=$!
await 'the simulator' grep -q endpoints "$demo/strongroom.toml"
printf '\n[sets.everyone]\ntenant = "simulated"\n' >> "$demo/strongroom.toml"
control=$(sed -n 's/.*login = "\([^"]*\)".*/\1/p' "$demo/strongroom.toml")/control
ours=("${as_nobody[@]}" STRONGROOM_REPO="$demo/work/repository" STRONGROOM_PASSWORD='demo only' STRONGROOM_STATE_DIR="$demo/work/state"
    STRONGROOM_CONFIG="$demo/strongroom.toml" SIMULATED_SECRET="$(sed -n 's/.*export SIMULATED_SECRET=//p' "$demo/strongroom.toml")" "$strongroom")
start_screen
chown -R nobody "$demo/work"
cd "$demo/work"
"${ours[@]}" init --quiet >/dev/null
"${ours[@]}" backup --set everyone --quiet >/dev/null
"${ours[@]}" mount "$at" --restore --quiet

# Two users; a folder of the first one with few mails, and what the second one is to get.
users=$("${as_nobody[@]}" ls "$at/latest/Users")
from=$(head -n 1 <<< "$users") to=$(tail -n 1 <<< "$users")
folder=$("${as_nobody[@]}" find "$at/latest/Users/$from/Outlook" -mindepth 1 -type d -printf '%P\n' | while read -r name; do
    count=$("${as_nobody[@]}" find "$at/latest/Users/$from/Outlook/$name" -maxdepth 1 -name '*.eml' | wc -l)
    [ "$count" -lt 3 ] || [ "$count" -gt 400 ] || printf '%s %s\n' "$count" "$name"
done | sort -n | head -n 1)
count=${folder%% *} folder=${folder#* }
target="$at/restore/simulated/Users/$to/Outlook"
settled() { # HOW_MANY
    "${ours[@]}" restore jobs --json | python3 -c 'import json, sys
states = [file["state"] for job in json.load(sys.stdin) for file in job["files"]]
done = states.count("done")
sys.exit(not (done == len(states) == int(sys.argv[1])))' "$1"
}

# PROGRAM FROM TO PICTURE HOW_MANY_IN_ALL: copies all of one folder to another.
drop() {
    start_manager "$1"
    type_path "$2" && xdotool key --window "$window" Return
    sleep 2 # for the listing, of which a screen says nothing
    xdotool key --window "$window" ctrl+a
    xdotool key --window "$window" ctrl+c
    type_path "$3" && xdotool key --window "$window" Return
    sleep 2
    xdotool key --window "$window" ctrl+v
    await "$1 has dropped, and all is restored" settled "$5"
    sleep 1
    look "$demo/shown.ppm"
    keep_picture "$demo/shown.ppm" "$pictures/$4"
    kill "$manager" && wait "$manager" 2>/dev/null || true
    manager=''
}

thunar="From $from" pcmanfm="Again from $from"
"${as_nobody[@]}" mkdir "$target/$thunar" "$target/$pcmanfm"
drop thunar "$at/latest/Users/$from/Outlook/$folder" "$target/$thunar" restore-thunar.png "$count"
drop pcmanfm "$at/latest/Users/$from/Outlook/$folder" "$target/$pcmanfm" restore-pcmanfm.png $((2 * count))

# What the mailbox holds now, by those who keep it.
curl -sf "$control/users/$to/truth" | python3 -c '
import collections, json, sys
lines = [json.loads(line) for line in sys.stdin]
for name in sys.argv[2:]:
    folder = next(line["folder"]["id"] for line in lines if line.get("folder", {}).get("path") == [name])
    got = collections.Counter(line["message"]["mime"] for line in lines if line.get("message", {}).get("folder") == folder)
    assert len(got) == sum(got.values()) == int(sys.argv[1]), (name, len(got), sum(got.values()))
' "$count" "$thunar" "$pcmanfm"
printf 'each file manager: %s mails, each of them restored once\n' "$count"
