#!/usr/bin/env bash
# The first screen of a workspace's report page as a PNG file: scripts/picture.sh WORKSPACE PICTURE
set -euo pipefail
page="$(realpath -m "$1")/reports/index.html"
browser="${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}"
[ -f "$page" ] || { echo "error: there is no report $page; run: make quickstart" >&2; exit 1; }
[ -n "$browser" ] || { echo "error: no browser found; install Chromium, or set CHROMIUM=/path/to/chrome" >&2; exit 1; }
profile="$(mktemp -d)"
trap 'rm -rf "$profile"' EXIT
mkdir -p "$(dirname "$2")"
# The page without this machine's folders.
sed "s#$(realpath "$1")#$1#g" "$page" > "$profile/page.html"
"$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile" \
    --window-size=1280,1480 --screenshot="$(realpath -m "$2")" "file://$profile/page.html" 2> /dev/null
# A page of few colours: 128 of them look the same and take a third of the bytes.
"$(dirname "${BASH_SOURCE[0]}")/../.venv/bin/python" - "$2" << 'END'
import sys
from PIL import Image
Image.open(sys.argv[1]).convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(sys.argv[1], optimize=True)
END
echo "$2"
