#!/usr/bin/env python3
"""Compares aurora-plan with oracles that share no code with it: programs in Python on scipy's solvers.

    run.py ORACLE --aurora-plan PROGRAM [--seed S]     ORACLE: order, placement or colocation

Prints the seed, what was compared, and every instance on which the two disagree; ends with 1 when there is one and
with 77 (skipped) when no Python here has scipy.
"""
import argparse
import importlib
import os
import sys
import time
from pathlib import Path

# Where apt puts scipy (launch/install_dependencies.sh --test), whichever Python comes first on the path.
SYSTEM_PYTHON = "/usr/bin/python3"


def need_scipy():
    try:
        importlib.import_module("scipy.optimize")
        return
    except ImportError:
        pass
    if os.access(SYSTEM_PYTHON, os.X_OK) and os.environ.get("AURORA_ORACLE_PYTHON") != SYSTEM_PYTHON:
        os.environ["AURORA_ORACLE_PYTHON"] = SYSTEM_PYTHON
        os.execv(SYSTEM_PYTHON, [SYSTEM_PYTHON, "-B", *sys.argv])
    print("SKIP: no Python here has scipy; launch/install_dependencies.sh --test installs it")
    sys.exit(77)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("oracle", choices=["order", "placement", "colocation"])
    parser.add_argument("--aurora-plan", required=True, metavar="PROGRAM")
    parser.add_argument("--seed", type=int, default=1)
    settings = parser.parse_args()
    need_scipy()
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import numpy  # after need_scipy: it may have changed the Python
    import scipy
    from planner import Checks, Planner
    start = time.monotonic()
    print(f"oracle {settings.oracle}, seed {settings.seed}, scipy {scipy.__version__}, numpy {numpy.__version__}",
          flush=True)
    checks = Checks()
    importlib.import_module(f"{settings.oracle}_oracle").run(
        Planner(settings.aurora_plan), checks, numpy.random.default_rng(settings.seed))
    for failure in checks.failures[:20]:
        print(f"FAILED: {failure}")
    print(f"{checks.num_passed} comparisons agree, {len(checks.failures)} do not, "
          f"{time.monotonic() - start:.1f} s")
    return 1 if checks.failures else 0


if __name__ == "__main__":
    sys.exit(main())
