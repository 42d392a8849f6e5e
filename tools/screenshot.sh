#!/usr/bin/env bash
# Shows a folder of 5,000 mails, backed up and mounted, in two file managers that have no screen, takes a picture of the first, and
# drags the folder out to the desktop with each:
#
#   tools/screenshot.sh [PICTURE.png]     docs/images/file-manager.png unless given
#
# Says how long Thunar and PCManFM took until their listings stood still and until all was on the desktop, and what they asked of the
# mount; ends well only if every mail there is the same, with its time. The mails are the Spam Assassin public corpus. Needs the release
# binary (STRONGROOM names another), root (the file managers run as nobody), /dev/fuse, and thunar, pcmanfm, xvfb, xdotool,
# imagemagick and dbus (`make screenshot` installs them).
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(dirname "$tools")
strongroom=$(realpath "${STRONGROOM:-$project/target/release/strongroom}")
picture=$(realpath -m "${1:-$project/docs/images/file-manager.png}")
mails=5000
at=/mnt/backup

# shellcheck source=tools/screen.sh
. "$tools/screen.sh"
screen='' manager='' mount=''
leave() {
    for pid in $manager $screen; do kill "$pid" 2>/dev/null || true; done
    if [ -n "$mount" ]; then kill "$mount" 2>/dev/null && wait "$mount" || true; fi
    rmdir "$at" || true
    rm -rf --one-file-system "$demo"
}

# A path that fits into a picture.
mkdir "$at" || fail "$at is there already"
trap leave EXIT
export STRONGROOM_REPO="$demo/repository" STRONGROOM_PASSWORD='demo only' STRONGROOM_STATE_DIR="$demo/state"
"$tools/corpus-spamassassin.sh" "$demo/corpus" >/dev/null
mkdir -p "$demo/mail/Inbox"
# Under names that people read, as mails of a mailbox have them.
python3 - "$demo/corpus" "$demo/mail/Inbox" "$mails" <<'PYTHON'
import email.header, email.utils, os, pathlib, sys
corpus, inbox, count = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
written = 0
# Spam has made-up dates; of what is not spam there are not enough.
def order(path):
    return ("spam" in path.parent.name, path)


for path in sorted(corpus.rglob("*.eml"), key=order):
    if written == count:
        break
    head = email.message_from_bytes(path.read_bytes()[:8192])
    try:
        time = email.utils.parsedate_to_datetime(head["Date"])
        subject = str(email.header.make_header(email.header.decode_header(head["Subject"] or "(no subject)")))
        sender = email.utils.parseaddr(str(head["From"]))
    except (TypeError, ValueError, LookupError):
        continue
    if time.year < 2002 or ("spam" in path.parent.name and (time.year, time.month) < (2002, 6)):
        continue
    name = f"{time:%Y-%m-%d %H.%M} {sender[0] or sender[1]} - {' '.join(subject.split())}"
    name = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name)
    target = inbox / (name.encode()[:240].decode(errors="ignore") + ".eml")
    if target.exists():
        continue
    target.write_bytes(path.read_bytes())
    os.utime(target, (time.timestamp(), time.timestamp()))
    written += 1
if written < count:
    sys.exit(f"only {written} mails")
PYTHON
"$strongroom" init --quiet >/dev/null
"$strongroom" backup --quiet --files "$demo/mail" --as mail >/dev/null 2>&1
"$strongroom" mount "$at" --snapshot latest --allow-other --foreground -v 2>"$demo/log" &
mount=$!
await 'the mount is there' grep -qF " $at " /proc/self/mountinfo

start_screen
now() { date +%s%3N; }
# PROGRAM: ends it, not only its session: the next would hand over to one that is still there.
stop_manager() {
    pkill -u nobody -ix "$1" || true
    await "$1 is gone" is_gone "$1"
    kill "$manager" 2>/dev/null && wait "$manager" || true
    manager=''
}
is_gone() { ! pgrep -u nobody -ix "$1" >/dev/null; }

# Only where names of files stand: frames and menus change before there are any.
look_at_list() { import -window root -crop 800x480+220+100 "$1" 2>/dev/null; }

# PROGRAM FOLDER: waits until its listing of the folder stands still; the picture of it is in last.ppm.
listing() {
    local started
    # The file manager starts in an empty folder: what its start takes is not the mount's.
    start_manager "$1"
    stands_still "$demo/empty.ppm" 1000
    type_path "$2"
    started=$(now)
    xdotool key --window "$window" Return
    stands_still "$demo/list.ppm" 3000 "$demo/empty.ppm"
    printf '%s: listing of the %s mails in %s shown after %s ms\n' "$1" "$mails" "$2" $((shown - started))
    look "$demo/last.ppm"
    stop_manager "$1"
}

# PICTURE MS [OTHER]: waits until the list has looked the same for so long, and not as in the other picture; when that began is in `shown`.
stands_still() {
    local begun moment
    begun=$(now) shown=$begun
    look_at_list "$1"
    while [ $(($(now) - shown)) -lt "$2" ] || { [ $# -gt 2 ] && cmp -s "$1" "$3"; }; do
        moment=$(now)
        look_at_list "$demo/now.ppm"
        if ! cmp -s "$demo/now.ppm" "$1"; then shown=$moment; mv "$demo/now.ppm" "$1"; fi
        [ $(($(now) - begun)) -lt 30000 ] || fail 'the listing does not stand still'
    done
}

two_windows() { [ "$(xdotool search --onlyvisible --class "$1" | wc -l)" = 2 ]; }
is_out() { diff -r "$at/Inbox" "$demo/home/Desktop/Inbox" >/dev/null 2>&1; }
times() { (cd "$1" && find . -type f -printf '%P %s %Ts\n' | sort); }

# PROGRAM X Y OPTIONS...: drags the folder, whose icon is there, from one window of it to another, which shows the desktop.
drag_out() {
    local program=$1 x=$2 y=$3 started step each left
    shift 3
    rm -rf "$demo/home/Desktop"
    install -d -o nobody "$demo/home/Desktop"
    "${as_nobody[@]}" dbus-run-session -- sh -c 'at=$1; shift; "$@" "$at" & sleep 1; "$@" "$HOME/Desktop" & wait' sh "$at" "$program" "$@" \
        >/dev/null 2>&1 &
    manager=$!
    await "two windows of $program" two_windows "$program"
    sleep 2 # for the listings, of which a screen says nothing
    for each in $(xdotool search --onlyvisible --class "$program"); do
        case $(xdotool getwindowname "$each") in *Desktop*) left=555 ;; *) left=0 ;; esac
        xdotool windowsize --sync "$each" 540 640 windowmove "$each" "$left" 0
    done
    sleep 1
    xdotool mousemove "$x" "$y" mousedown 1
    for step in 1 2 3 4 5 6 7 8; do
        sleep 0.1 # as a hand would
        xdotool mousemove $((x + (900 - x) * step / 8)) $((y + (400 - y) * step / 8))
    done
    sleep 0.3
    started=$(now)
    xdotool mouseup 1
    await "$program has copied the folder" is_out
    printf '%s: %s mails dragged out after %s ms at most\n' "$program" "$mails" $(($(now) - started))
    [ "$(times "$at/Inbox")" = "$(times "$demo/home/Desktop/Inbox")" ] || fail "$program: the mails have other times"
    stop_manager "$program"
}

# The first time it reads much of its own: beside the mount a folder on the disk is measured, and first.
chmod -R a+rX "$demo/mail"
for program in pcmanfm thunar; do
    listing "$program" "$demo/mail/Inbox"
    listing "$program" "$at/Inbox"
done
keep_picture "$demo/last.ppm" "$picture"
drag_out thunar 215 104
drag_out pcmanfm 205 95 --new-win

kill "$mount" && wait "$mount" || true
mount=''
sed -n 's/.*the mount has ended //p' "$demo/log"
