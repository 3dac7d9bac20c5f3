#!/usr/bin/env bash
# Installs what the tests need beside .venv: an S3 server, an HDFS, a broker of Kafka, MLflow and Feast in .venv-servers,
# Spark's connectors of S3 and Kafka, and Python's client of HDFS.
# Does nothing where all is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly VENV=.venv-servers STAMP=.venv-servers/.installed
wanted=$(cat requirements/servers.txt tests/servers.py tests/kafka_jars.txt tests/yarn_jars.txt learn_spark/core/s3_jars.txt learn_spark/core/*.java scripts/test_servers.sh | cksum)
[[ -f $STAMP && $(<"$STAMP") == "$wanted" && -d .venv/share/learn-spark/jars/s3 && -d .venv/share/learn-spark/jars/kafka ]] && exit 0
echo "installing the servers of the tests in $VENV"
.venv/bin/uv venv --quiet --allow-existing --python .venv/bin/python "$VENV"
.venv/bin/uv pip install --quiet --python "$VENV/bin/python" --require-hashes -r requirements/servers.txt
.venv/bin/python -m tests.servers
echo "$wanted" >"$STAMP"
