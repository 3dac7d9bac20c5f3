#!/usr/bin/env bash
# Runs the stages on Spark 4.1 beside the Spark of the lock, all but training, and compares tables, figures and vectors.
# Spark 4.1 with Delta and the newest packages that go with it is in .venv-spark41 (6.4 GB; PyTorch brings CUDA).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly PYTHON=.venv-spark41/bin/python
java_home="$(scripts/setup.sh --check | sed -n 's/^Java: *//p')"
.venv/bin/uv venv --quiet --allow-existing --python .venv/bin/python .venv-spark41
.venv/bin/uv pip install --quiet --python "$PYTHON" -r pyproject.toml --extra spark --extra quality --extra encode \
  --extra index --extra ads 'pyspark>=4.1,<4.2'
# As in setup.sh: else every worker may compile PyTorch again.
"$PYTHON" -m compileall -qq -j 0 .venv-spark41/lib >/dev/null 2>&1 || true
PYTHONPATH="$PWD" "$PYTHON" -m learn_spark.core.install --java-home "$java_home"
.venv/bin/python -m pytest tests/setup/test_spark_versions.py "$@"
