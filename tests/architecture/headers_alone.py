#!/usr/bin/env python3
"""Every header of ours compiles alone, so that nobody has to know what to include before it.

    headers_alone.py --compiler c++ [--include FOLDER]... [--root DIR] [--jobs N]

Each header is compiled (syntax only) as the one thing that a translation unit includes. FOLDERs are where foreign
headers lie that the compiler does not find by itself. Ends with 1 and the compiler's words for each that fails.
"""
import argparse
import concurrent.futures
import fnmatch
import os
import subprocess
import sys
from pathlib import Path

import rules


def compile_alone(compiler, root, folders, header):
    command = [compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function",
               "-Wno-unused-const-variable", "-Wno-psabi", "-I", str(root), *(f"-isystem{f}" for f in folders),
               "-x", "c++", "-"]
    done = subprocess.run(command, input=f'#include "{header}"\n', capture_output=True, text=True, check=False)
    return header, done.returncode, done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--compiler", required=True)
    parser.add_argument("--include", action="append", default=[], help="folder of foreign headers")
    parser.add_argument("--except", dest="left_out", action="append", default=[], metavar="PATTERN",
                        help="headers that need foreign ones which are not on this machine")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    all_headers = [p for p in rules.Tree(root).sources() if p.endswith(".h")]
    headers = [p for p in all_headers if not any(fnmatch.fnmatch(p, pattern) for pattern in arguments.left_out)]
    if not headers:
        print(f"{root}: no headers below; is this the root of the repository?", file=sys.stderr)
        return 1
    num_failed = 0
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for header, status, text in pool.map(
                lambda h: compile_alone(arguments.compiler, root, arguments.include, h), headers):
            if status != 0:
                num_failed += 1
                print(f"{header} does not compile alone:\n{text}")
    print(f"{len(headers) - num_failed} of {len(headers)} headers compile alone; "
          f"{len(all_headers) - len(headers)} were left out")
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
