#!/bin/sh
# Which GPUs this machine (or container) has, as Spark wants to know: {"name": "gpu", "addresses": ["0", "1"]}
# For spark.worker.resource.gpu.discoveryScript (standalone) and spark.executor.resource.gpu.discoveryScript (YARN,
# Kubernetes); docs/cluster.md. Numbers and not UUIDs: the encoder takes them for cuda:0, cuda:1.
set -eu
indices=$(nvidia-smi --query-gpu=index --format=csv,noheader)
printf '{"name": "gpu", "addresses": [%s]}\n' "$(printf '%s\n' "$indices" | sed 's/.*/"&"/' | paste -s -d , -)"
