#!/usr/bin/env bash
# Installs what the tests need beside .venv. In .venv-servers: an S3 server, an HDFS, a broker of Kafka, MLflow and
# Feast, Spark's connectors of S3 and Kafka, and Python's client of HDFS. In .venv-spark41: Spark 4.1 with the newest
# packages that go with it (6.4 GB, but PyTorch's are links to the files of .venv where uv can link).
# Does nothing where all is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stamp_of() { # a checksum of files, and of this one
  cat "$@" scripts/test_servers.sh | cksum
}

install() { # an environment by its lock, again where only packages of it changed
  .venv/bin/uv venv --quiet --allow-existing --python .venv/bin/python "$1"
  .venv/bin/uv pip install --quiet --python "$1/bin/python" --require-hashes -r "$2"
}

servers=$(stamp_of requirements/servers.txt tests/servers.py tests/kafka_jars.txt tests/yarn_jars.txt learn_spark/core/s3_jars.txt learn_spark/core/*.java)
if [[ ! -f .venv-servers/.installed || $(<.venv-servers/.installed) != "$servers" ||
  ! -d .venv/share/learn-spark/jars/s3 || ! -d .venv/share/learn-spark/jars/kafka ]]; then
  echo "installing the servers of the tests in .venv-servers"
  install .venv-servers requirements/servers.txt
  .venv/bin/python -m tests.servers
  echo "$servers" >.venv-servers/.installed
fi

spark41=$(stamp_of requirements/spark41.txt learn_spark/core/install.py)
if [[ ! -f .venv-spark41/.installed || $(<.venv-spark41/.installed) != "$spark41" ]]; then
  echo "installing Spark 4.1 for the tests in .venv-spark41"
  install .venv-spark41 requirements/spark41.txt
  # The Java that .venv's own Spark starts.
  java_home="$(.venv/bin/python -c 'import os; from learn_spark.core.tables.session import set_java_home
set_java_home(); print(os.environ.get("JAVA_HOME", ""))')"
  PYTHONPATH="$PWD" .venv-spark41/bin/python -m learn_spark.core.install --java-home "$java_home"
  echo "$spark41" >.venv-spark41/.installed
fi
