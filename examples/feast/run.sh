#!/usr/bin/env bash
# From the releases of a workspace to Feast's online store: examples/feast/run.sh WORKSPACE FOLDER
#   FOLDER       becomes the Feast repository; the same again after the next release
#   FEAST_REDIS  host:port of a Redis, by default localhost:6379
#   FEAST_PYTHON a Python that has Feast; left out, .venv-feast beside this file is made for it
# The python on PATH is that of learn-spark.
set -euo pipefail
[[ $# -eq 2 ]] || { sed -n '2,6p' "$0" | cut -c3- >&2; exit 2; }
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export FEAST_REDIS="${FEAST_REDIS:-localhost:6379}" FEAST_USAGE=False
feast="${FEAST_PYTHON:-$here/.venv-feast/bin/python}"
if [[ ! -x $feast ]]; then
  python3 -m venv "$here/.venv-feast"
  "$feast" -m pip install --quiet -r "$here/requirements.txt"
fi
python "$here/export.py" "$1" "$2/data"
cp "$here"/{features.py,feature_store.yaml,serve.py} "$2"
cd "$2"
# What learn-spark's environment names is not for Feast's.
env -u PYTHONPATH -u PYTHONHOME "$feast" serve.py load
