# Sourced by the scripts that show file managers without a screen: a screen, somebody who is not root, and waiting.
#
# Needs xvfb, xdotool, imagemagick and dbus. Sets `demo`, a folder of the script's own that goes when it ends, and `as_nobody`.

fail() { printf 'Error: %s\n' "$1" >&2; exit 1; }

# WHAT COMMAND...: waits until the command succeeds.
await() {
    local what=$1; shift
    for _ in $(seq 600); do "$@" && return; sleep 0.05; done
    fail "$what: still not so after 30 seconds"
}

demo=$(mktemp -d "${TMPDIR:-/tmp}/strongroom-screenshot.XXXXXX")
chmod 755 "$demo"
mkdir "$demo/home"
# As somebody who is not root, as file managers warn root.
as_nobody=(setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME="$demo/home" XDG_RUNTIME_DIR="$demo/home" NO_AT_BRIDGE=1)

# Starts a screen, its process in `screen`; file managers show details on all of it.
start_screen() {
    Xvfb -displayfd 3 -screen 0 1100x640x24 3>"$demo/display" 2>/dev/null &
    screen=$!
    await 'a screen' test -s "$demo/display"
    DISPLAY=:$(cat "$demo/display")
    export DISPLAY
    mkdir -p "$demo/home/.config/xfce4/xfconf/xfce-perchannel-xml"
    cat > "$demo/home/.config/xfce4/xfconf/xfce-perchannel-xml/thunar.xml" <<'XML'
<?xml version="1.0" encoding="UTF-8"?>
<channel name="thunar" version="1.0">
  <property name="default-view" type="string" value="ThunarDetailsView"/>
  <property name="last-details-view-zoom-level" type="string" value="THUNAR_ZOOM_LEVEL_25_PERCENT"/>
  <property name="last-window-width" type="int" value="1100"/>
  <property name="last-window-height" type="int" value="640"/>
</channel>
XML
    mkdir "$demo/home/empty"
    chown -R nobody "$demo/home"
}

# PROGRAM: starts a file manager in an empty folder, its process in `manager`, its window in `window`.
start_manager() {
    "${as_nobody[@]}" dbus-run-session -- "$1" "$demo/home/empty" >/dev/null 2>&1 &
    manager=$!
    await "a window of $1" xdotool search --onlyvisible --class "$1" >/dev/null
    window=$(xdotool search --onlyvisible --class "$1" | tail -n 1)
    xdotool windowsize --sync "$window" 1100 640 windowmove "$window" 0 0 windowfocus "$window"
}

# PATH: types where the file manager is to go; Return is left to press.
type_path() {
    xdotool key --window "$window" ctrl+l
    xdotool type --window "$window" --delay 1 "$1"
}

look() { import -window root "$1" 2>/dev/null; }

# FROM TO: makes a small picture.
keep_picture() {
    mkdir -p "$(dirname "$2")"
    convert "$1" +dither -colors 32 -strip -define png:compression-level=9 "$2"
    printf 'picture: %s, %s bytes\n' "$2" "$(stat -c %s "$2")"
}
