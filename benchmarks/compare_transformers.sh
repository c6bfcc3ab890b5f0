#!/bin/sh
# Runs compare_transformers.py with a Python that has torch and transformers: the one that AURORA_PYTHON names, or a
# virtual environment under build/ that is made on the first run (about 2 GB are downloaded). Arguments are passed on.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=${AURORA_PYTHON:-}
if [ -z "$python" ]; then
  environment=$root/build/transformers-venv
  python=$environment/bin/python
  if ! "$python" -c 'import torch, transformers' 2>/dev/null; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet torch transformers
  fi
fi
"$python" -c 'import torch, transformers' || { echo "$python lacks torch or transformers" >&2; exit 1; }
exec "$python" "$root/benchmarks/compare_transformers.py" "$@"
