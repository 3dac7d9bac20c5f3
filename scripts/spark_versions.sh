#!/usr/bin/env bash
# Runs the data stages on Spark 4.1 beside the Spark of the lock, and compares their tables. Spark 4.1 with Delta and the
# newest packages that the Spark rooms allow is in .venv-spark41.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly PYTHON=.venv-spark41/bin/python
java_home="$(scripts/setup.sh --check | sed -n 's/^Java: *//p')"
.venv/bin/uv venv --quiet --allow-existing --python .venv/bin/python .venv-spark41
.venv/bin/uv pip install --quiet --python "$PYTHON" -r pyproject.toml --extra spark --extra quality 'pyspark>=4.1,<4.2'
PYTHONPATH="$PWD" "$PYTHON" -m learn_spark.core.install --java-home "$java_home"
.venv/bin/python -m pytest tests/setup/test_spark_versions.py "$@"
