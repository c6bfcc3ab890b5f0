#!/bin/sh
# One command across an emulated cluster: see testbed.py, which says what it makes and takes.
exec python3 -B "$(dirname -- "$0")/testbed.py" "$@"
