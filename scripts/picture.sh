#!/usr/bin/env bash
# A workspace's front page as two PNG files: scripts/picture.sh WORKSPACE PICTURE
# PICTURE: the first screen. The other one, with "-parts" in its name: at the width of a phone, and lineage in the dark.
set -euo pipefail
page="$(realpath -m "$1")/reports/index.html"
browser="${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}"
[ -f "$page" ] || { echo "error: there is no report $page; run: make quickstart" >&2; exit 1; }
[ -n "$browser" ] || { echo "error: no browser found; install Chromium, or set CHROMIUM=/path/to/chrome" >&2; exit 1; }
profile="$(mktemp -d)"
trap 'rm -rf "$profile"' EXIT
mkdir -p "$(dirname "$2")"
python="$(dirname "${BASH_SOURCE[0]}")/../.venv/bin/python"
# The page without this machine's folders, and the same page in its dark colours.
sed "s#$(realpath "$1")#$1#g" "$page" > "$profile/page.html"
sed "s#prefers-color-scheme: dark#min-width: 0#; s#color-scheme: light dark#color-scheme: dark#; s#scroll-behavior: smooth##" "$profile/page.html" > "$profile/dark.html"
cat > "$profile/parts.html" << 'END'
<!doctype html><style>body { margin: 0; display: flex; } iframe { border: 0; height: 1000px; flex: none; }</style>
<iframe src="page.html" style="width: 400px"></iframe><iframe src="dark.html#about-publish" style="width: 880px"></iframe>
END

# $1: page, $2: height, $3: picture
draw() {
    "$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=3000 --user-data-dir="$profile/browser" \
        --blink-settings=preferredColorScheme=1 --window-size="1280,$2" --screenshot="$(realpath -m "$3")" "file://$profile/$1" 2> /dev/null
    # A page of few colours: 128 of them look the same and take a third of the bytes.
    "$python" - "$3" << 'END'
import sys
from PIL import Image
Image.open(sys.argv[1]).convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(sys.argv[1], optimize=True)
END
    echo "$3"
}

draw page.html 1480 "$2"
draw parts.html 1000 "${2%.png}-parts.png"
