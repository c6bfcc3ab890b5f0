#!/usr/bin/env python3
"""Runs clang-tidy over the sources of a build, several at once, and only over those that changed since they passed.

    clang_tidy.py --clang-tidy PROGRAM --build FOLDER [--jobs N] [--cache FOLDER] [PATH_PART]...

A file's state is the hash of clang-tidy's version, .clang-tidy, the compile command, and the text of the file and of
every header of ours that it includes (as the compiler lists them); a state that passed is remembered in the cache.
Foreign headers enter by the compiler's version alone. With PATH_PARTs only files whose path holds one of them.
Ends with 1 when a file has findings, after all files were looked at.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

# The compiler of the build judges warnings; clang's own, of GCC's options and headers, would only be in the way.
CLANG_ARGUMENTS = ["--extra-arg=-w"]


def output_of(command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def compiler_arguments(entry):
    """The compile command without its launcher, `-c` and the output."""
    arguments = entry.get("arguments") or shlex.split(entry["command"])
    if Path(arguments[0]).name == "ccache":
        arguments = arguments[1:]
    kept, skip = [], False
    for argument in arguments:
        if skip or argument in ("-c",):
            skip = False
        elif argument == "-o":
            skip = True
        else:
            kept.append(argument)
    return kept


def headers_of_ours(entry, arguments, root):
    """The file and what it includes from below the root, as the compiler sees it."""
    listed = subprocess.run([*arguments, "-MM", "-MT", "x"], capture_output=True, text=True, check=True,
                            cwd=entry["directory"]).stdout
    paths = {(Path(entry["directory"]) / p).resolve() for p in listed.replace("\\\n", " ").split()[1:]}
    return sorted(p for p in paths if p.is_relative_to(root))


def state_of(entry, build, root, common):
    """Independent of where the checkout and its build folder lie."""
    arguments = compiler_arguments(entry)
    state = hashlib.sha256(common)
    state.update(" ".join(arguments).replace(str(build), "BUILD").replace(str(root), "ROOT").encode())
    for path in headers_of_ours(entry, arguments, root):
        state.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()


def look_at(entry, settings, root, common):
    """(file, findings or None when it passed, seconds, known)"""
    start = time.monotonic()
    file = Path(entry["file"])
    try:
        marker = settings.cache / state_of(entry, settings.build.resolve(), root, common)
    except subprocess.CalledProcessError as error:
        return file, f"{file}: the compiler cannot read it:\n{error.stderr}", time.monotonic() - start, False
    if marker.exists():
        marker.touch()
        return file, None, time.monotonic() - start, True
    done = subprocess.run([settings.clang_tidy, "-p", str(settings.build), "--quiet", *CLANG_ARGUMENTS, str(file)],
                          capture_output=True, text=True, check=False)
    if done.returncode == 0:
        marker.touch()
        return file, None, time.monotonic() - start, False
    return file, done.stdout + (done.stderr if not done.stdout.strip() else ""), time.monotonic() - start, False


def forget_old(cache, days=30):
    limit = time.time() - days * 86400
    for marker in cache.iterdir():
        if marker.stat().st_mtime < limit:
            marker.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--clang-tidy", required=True)
    parser.add_argument("--build", type=Path, required=True, help="folder of compile_commands.json")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cache", type=Path,
                        default=Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aurora/clang-tidy")
    parser.add_argument("parts", nargs="*", metavar="PATH_PART")
    settings = parser.parse_args()
    root = Path(__file__).resolve().parents[2]
    settings.cache.mkdir(parents=True, exist_ok=True)
    forget_old(settings.cache)

    entries = {}
    for entry in json.loads((settings.build / "compile_commands.json").read_text()):
        file = Path(entry["file"])
        if file.is_relative_to(root) and not file.is_relative_to(settings.build.resolve()):
            if not settings.parts or any(part in str(file.relative_to(root)) for part in settings.parts):
                entries[file] = entry
    if not entries:
        print(f"{settings.build}/compile_commands.json names no source file of ours", file=sys.stderr)
        return 1
    compiler = compiler_arguments(next(iter(entries.values())))[0]
    common = "\n".join([output_of([settings.clang_tidy, "--version"]), output_of([compiler, "--version"]),
                        (root / ".clang-tidy").read_text(), Path(__file__).read_text()]).encode()

    num_failed = num_known = 0
    with concurrent.futures.ThreadPoolExecutor(settings.jobs) as pool:
        for file, findings, seconds, known in pool.map(
                lambda e: look_at(e, settings, root, common), entries.values()):
            num_known += known
            if findings is not None:
                num_failed += 1
                print(f"--- {file.relative_to(root)} ({seconds:.1f} s)\n{findings}", flush=True)
    print(f"clang-tidy: {len(entries) - num_failed} files passed ({num_known} of them known from before), "
          f"{num_failed} have findings")
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(main())
