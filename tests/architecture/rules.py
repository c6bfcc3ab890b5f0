#!/usr/bin/env python3
"""The rules of the house that a script can check: who may include whom, where feature switches may stand, what a
library must not call, what the top level holds, and that no file names a path of somebody's machine.

    rules.py --list
    rules.py RULE [--root DIR]     prints file:line: reason for every violation and ends with 1 when there is one

Each rule is a function from a `Tree` to violations. rules_test.py plants a violation of each rule in a small tree of
its own and expects to see it found, so no rule can rot into one that never fails. Python's standard library only.
"""
import argparse
import functools
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

SOURCE_SUFFIXES = (".h", ".cc", ".cu", ".cuh")
HEADER_SUFFIXES = (".h", ".cuh")
CODE_FOLDERS = ("scheduler", "kernels", "runtime", "launch", "benchmarks", "tests")
LIBRARY_FOLDERS = ("scheduler", "kernels", "runtime")

TOP_LEVEL_FOLDERS = {"scheduler", "kernels", "runtime", "launch", "benchmarks", "tests", "docker"}
TOP_LEVEL_FILES = {"CMakeLists.txt", "CMakePresets.json", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"}

# Folders that hold what other programs wrote: checkpoints, references, corpora. Text rules pass them by.
DATA_FILES = ["launch/models/**", "tests/**fixtures/**.json", "tests/**corpus/**", "tests/**data/**"]
# Paths there are paths inside a container image.
CONTAINER_FILES = ["docker/**", "launch/cluster/**"]

# ---------------------------------------------------------------------------------------------------------------
# Who may include which of our own headers. In a pattern * stays inside a folder and ** crosses folders. A file
# belongs to the first entry that matches it.
TRANSPORT_UP = ["kernels/*", "scheduler/*", "runtime/transport/*"]
DISPATCH_UP = TRANSPORT_UP + ["runtime/dispatch/*"]
MOE_UP = DISPATCH_UP + ["runtime/moe/*"]
MODEL_UP = MOE_UP + ["runtime/model/*"]
# Vocabulary that the executor and the doors share with the engine.
ENGINE_VOCABULARY = ["runtime/request.h", "runtime/model_options.h", "runtime/serialization.h"]
EXECUTOR_UP = MODEL_UP + ["runtime/executor/*", "runtime/plan_io/*"] + ENGINE_VOCABULARY
ENGINE_UP = EXECUTOR_UP + ["runtime/*"]

INTERNAL_INCLUDES = [
    ("scheduler/*", ["scheduler/*"]),
    ("kernels/backend_registry.cc", ["kernels/**"]),
    ("kernels/*", ["kernels/*"]),
    ("kernels/cpu/*", ["kernels/*", "kernels/cpu/*"]),
    ("kernels/cuda/*", ["kernels/*", "kernels/cuda/*"]),
    ("runtime/transport/nccl_*", TRANSPORT_UP + ["kernels/cuda/cuda_stream.h", "kernels/cuda/check_cuda.h"]),
    ("runtime/transport/*", TRANSPORT_UP),
    ("runtime/dispatch/*", DISPATCH_UP),
    ("runtime/moe/*", MOE_UP),
    ("runtime/model/*", MODEL_UP),
    # A fabric's costs are read from a file as plans are; their type depends on scheduler/ alone.
    ("runtime/plan_io/*", ["scheduler/*", "kernels/error.h", "runtime/plan_io/*",
                           "runtime/dispatch/fabric_model.h"]),
    ("runtime/request.h", ["kernels/error.h", "runtime/model/tokenizer.h"]),
    ("runtime/model_options.h", ["kernels/error.h", "kernels/dtype.h"]),
    ("runtime/serialization.*", ["kernels/error.h", "runtime/serialization.h"]),
    ("runtime/executor/*", EXECUTOR_UP),
    ("runtime/*", ENGINE_UP),
    ("runtime/c_api/*", ENGINE_UP + ["runtime/c_api/*"]),
    ("runtime/python/*", ENGINE_UP + ["runtime/python/*"]),
    # The programs stand on the engine's door and on what they must choose before there is an engine: a backend, a
    # transport, the files to read. They see neither kernels nor layers.
    ("launch/**", ["launch/**", "scheduler/*", "runtime/engine.h", "runtime/agreement.h", "runtime/plan_io/*",
                   "runtime/rank_memory.h", "runtime/transport/transport*.h", "runtime/transport/thread_transport.h",
                   "runtime/transport/mpi_session.h", "runtime/transport/mpi_transport.h", "runtime/transport/wait.h",
                   "runtime/model/tokenizer.h", "runtime/model/model_config.h", "kernels/error.h", "kernels/dtype.h",
                   "kernels/backend.h", "kernels/backend_registry.h"] + ENGINE_VOCABULARY),
    ("benchmarks/**", ["**"]),
    ("tests/**", ["**"]),
]

# Headers of others. Every `<...>` that is neither C++ nor listed here is a violation, so that a new dependency is
# a decision. The second column says which files may include it, themselves or through a header of ours.
EXTERNAL_INCLUDES = [
    ("mpi.h", ["runtime/transport/mpi_*", "tests/**.cc", "benchmarks/**.cc"]),
    ("nccl.h", ["runtime/transport/nccl_*"]),
    ("cuda**", ["kernels/cuda/*", "runtime/transport/nccl_*"]),
    ("cublas**", ["kernels/cuda/*", "runtime/transport/nccl_*"]),
    ("nvtx3/**", ["kernels/cuda/*"]),
    ("nv/target", ["kernels/cuda/*"]),
    ("mma.h", ["kernels/cuda/*"]),
    ("cblas.h", ["kernels/cpu/*.cc", "benchmarks/**.cc"]),
    ("immintrin.h", ["kernels/cpu/*"]),
    ("nlohmann/json_fwd.hpp", ["runtime/model/*", "runtime/plan_io/*", "runtime/executor/*", "runtime/*", "launch/**",
                               "tests/**", "benchmarks/**"]),
    ("nlohmann/json.hpp", ["runtime/model/*.cc", "runtime/plan_io/*.cc", "runtime/plan_io/json_fields.h",
                           "runtime/executor/*.cc", "runtime/*.cc",
                           "launch/**.cc", "tests/**.cc", "benchmarks/**.cc"]),
    ("toml++/**", ["runtime/plan_io/*.cc", "launch/**.cc", "tests/**.cc", "benchmarks/**.cc"]),
    ("CLI/**", ["launch/**.cc", "tests/**.cc", "benchmarks/**.cc"]),
    ("spdlog/**", ["launch/**.cc", "benchmarks/**.cc"]),
    ("pcre2.h", ["runtime/model/*.cc"]),
    ("utf8proc.h", ["runtime/model/*.cc"]),
    ("gtest/**", ["tests/**"]),
    ("gmock/**", ["tests/**"]),
]
POSIX_HEADERS = ["unistd.h", "fcntl.h", "sched.h", "poll.h", "pthread.h", "signal.h", "netdb.h", "dirent.h", "spawn.h",
                 "termios.h", "dlfcn.h", "sys/*", "arpa/inet.h", "netinet/*"]
POSIX_USERS = ["runtime/**.cc", "kernels/cpu/*.cc", "launch/**.cc", "benchmarks/**", "tests/**"]

CXX_HEADERS = set("""
algorithm any array atomic barrier bit bitset cassert cctype cerrno cfenv cfloat charconv chrono cinttypes climits
clocale cmath codecvt compare complex concepts condition_variable coroutine csetjmp csignal cstdarg cstddef cstdint
cstdio cstdlib cstring ctime cuchar cwchar cwctype deque exception execution filesystem format forward_list fstream
functional future initializer_list iomanip ios iosfwd iostream istream iterator latch limits list locale map memory
memory_resource mutex new numbers numeric optional ostream queue random ranges ratio regex scoped_allocator semaphore
set shared_mutex source_location span sstream stack stdexcept stop_token streambuf string string_view strstream
syncstream system_error thread tuple type_traits typeindex typeinfo unordered_map unordered_set utility valarray
variant vector version
""".split())


@dataclass(frozen=True)
class Violation:
    path: str
    line: int
    reason: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.reason}"


@functools.lru_cache(maxsize=None)
def pattern_expression(pattern):
    pieces = re.split(r"(\*\*|\*)", pattern)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(piece, re.escape(piece)) for piece in pieces))


def matches(path, patterns):
    return any(pattern_expression(pattern).fullmatch(path) for pattern in patterns)


def list_files(root):
    """Paths from the root, with '/': what git tracks or would track, or all files where this is no git checkout."""
    if (root / ".git").exists():
        listed = subprocess.run(["git", "-c", f"safe.directory={root}", "-C", str(root), "ls-files", "-z", "--cached",
                                 "--others", "--exclude-standard"], capture_output=True, check=False)
        if listed.returncode == 0:
            return sorted({p for p in listed.stdout.decode().split("\0") if p and (root / p).is_file()})
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in ("build", ".git", ".cache", "__pycache__")]
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in names]
    return sorted(found)


COMMENT_OR_LITERAL = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"([^()\\ ]{0,16})\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<!\w)\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)


def without_comments(text, keep_strings=False):
    """The code alone, on the same lines."""
    def blank(match):
        piece = match.group(0)
        if piece[0] in "\"'R" and (keep_strings or piece[0] == "'"):
            return piece
        return '""' + "\n" * piece.count("\n") if piece[0] in '"R' else " " + "\n" * piece.count("\n")
    return COMMENT_OR_LITERAL.sub(blank, text)


INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)


@dataclass
class Tree:
    root: Path
    files: list = field(default_factory=list)

    def __post_init__(self):
        self.files = list_files(self.root)
        self._texts, self._includes = {}, {}

    def text(self, path):
        if path not in self._texts:
            self._texts[path] = (self.root / path).read_bytes().decode("utf-8", errors="replace")
        return self._texts[path]

    def sources(self, folders=CODE_FOLDERS):
        return [p for p in self.files if p.endswith(SOURCE_SUFFIXES) and p.split("/")[0] in folders]

    def includes(self, path):
        """[(line, '<' or '"', name)] of one file."""
        if path not in self._includes:
            text = without_comments(self.text(path), keep_strings=True)
            self._includes[path] = [(text.count("\n", 0, m.start(2)) + 1, m.group(1), m.group(2))
                                    for m in INCLUDE.finditer(text)]
        return self._includes[path]

    def reached_external(self, path, seen=None):
        """{external header: how it is reached} for one file, through our own headers as well."""
        seen = {path} if seen is None else seen
        reached = {}
        for _, mark, name in self.includes(path):
            if mark == "<":
                reached.setdefault(name, name)
            elif name not in seen and (self.root / name).is_file():
                seen.add(name)
                for header, way in self.reached_external(name, seen).items():
                    reached.setdefault(header, f"{name} -> {way}")
        return reached


# ---------------------------------------------------------------------------------------------------------------
# The rules


def parts_include_only_what_lies_below_them(tree):
    """Our own headers: scheduler and kernels are roots; transport, dispatch -> moe -> model -> executor -> engine."""
    for path in tree.sources():
        allowed = next((a for pattern, a in INTERNAL_INCLUDES if matches(path, [pattern])), None)
        if allowed is None:
            yield Violation(path, 1, "belongs to no part of the house; add the part to INTERNAL_INCLUDES or move the file")
            continue
        for line, mark, name in tree.includes(path):
            if mark == '"' and not matches(name, allowed):
                yield Violation(path, line, f'must not include "{name}"; allowed here: {", ".join(allowed)}')


def own_headers_are_named_from_the_root(tree):
    """Quotes are for our headers, by their path from the root; angle brackets for everybody else's."""
    for path in tree.sources():
        for line, mark, name in tree.includes(path):
            if mark == '"' and not (tree.root / name).is_file():
                yield Violation(path, line, f'"{name}" is no file of ours when read from the root of the repository')
            elif mark == "<" and name.split("/")[0] in CODE_FOLDERS:
                yield Violation(path, line, f"<{name}> is ours: write it in quotes")


def foreign_headers_stay_in_their_places(tree):
    """scheduler: C++ alone. MPI, NCCL, CUDA, OpenBLAS, JSON, TOML, logging: each in its few files, and no header of
    ours carries one of them to others."""
    for path in tree.sources():
        lines = {name: line for line, mark, name in tree.includes(path) if mark == "<"}
        for name, way in sorted(tree.reached_external(path).items()):
            if name in CXX_HEADERS:
                continue
            places = next((a for pattern, a in EXTERNAL_INCLUDES if matches(name, [pattern])), None)
            if places is None and matches(name, POSIX_HEADERS):
                places = POSIX_USERS
            if places is None:
                if name in lines:
                    yield Violation(path, lines[name], f"<{name}> is not among the known dependencies; if it is to be "
                                    "one, list it in EXTERNAL_INCLUDES and give the reason in CONTRIBUTING.md")
            elif not matches(path, places):
                yield Violation(path, lines.get(name, 1), f"must not see <{name}> (through {way}); it belongs to "
                                f"{', '.join(places)}")


FEATURE_SWITCH = re.compile(r"^[ \t]*#[ \t]*(?:if|ifdef|ifndef|elif)\b.*\b(AURORA_\w+|\w*CUDA\w*|\w*NCCL\w*|"
                            r"\w*OPENBLAS\w*|(?:HAVE|USE|WITH|ENABLE)_\w+|__has_include)", re.MULTILINE)


def feature_switches_stand_in_registries(tree):
    """What is built in is decided by which files CMake compiles; only the two registries ask the preprocessor."""
    for path in tree.sources():
        if path.endswith("_registry.cc"):
            continue
        text = without_comments(tree.text(path))
        for match in FEATURE_SWITCH.finditer(text):
            line = text.count("\n", 0, match.start(1)) + 1
            yield Violation(path, line, f"asks the preprocessor about {match.group(1)}; only *_registry.cc may")


LIBRARY_MUST_NOT = [
    (re.compile(r"(?<![\w.>])(?:std::)?(secure_getenv|getenv|setenv|putenv|unsetenv)\s*\("), "touches the environment"),
    (re.compile(r"\bstd::(cout|cerr|clog|wcout|wcerr)\b"), "prints"),
    (re.compile(r"(?<![\w.>])(?:std::)?(printf|fprintf|vprintf|vfprintf|puts|fputs|putchar|perror)\s*\("), "prints"),
    (re.compile(r"(?<![\w.>])(?:std::|::)?(exit|_exit|_Exit|quick_exit|at_quick_exit|atexit)\s*\("), "exits"),
    (re.compile(r"(?:\bstd::|(?<![\w>])::)(abort|terminate)\s*\("), "aborts"),
    (re.compile(r"(?<![\w.>])(?:std::|::)?(signal|sigaction|sigprocmask)\s*\("), "touches signal handlers"),
    (re.compile(r"\b(assert)\s*\("), "uses an assertion that a release build drops; use check(...)"),
]


def libraries_neither_print_nor_exit_nor_read_the_environment(tree):
    """scheduler, kernels and runtime speak through return values, `Error` and the report; launch does the rest."""
    for path in tree.sources(LIBRARY_FOLDERS):
        text = without_comments(tree.text(path))
        for pattern, what in LIBRARY_MUST_NOT:
            for match in pattern.finditer(text):
                line = text.count("\n", 0, match.start(1)) + 1
                yield Violation(path, line, f"{match.group(1)} {what}; in a library only launch/ may do that")


def headers_have_a_guard_and_a_lecture(tree):
    """Every header begins with what it is about and is included once."""
    for path in tree.sources():
        if not path.endswith(HEADER_SUFFIXES):
            continue
        text = tree.text(path)
        if not text.startswith(("//", "/*")):
            yield Violation(path, 1, "begins without a comment that says what this header is about")
        if not re.search(r"^#pragma once$", text, re.MULTILINE):
            yield Violation(path, 1, "lacks #pragma once")


def headers_open_no_namespace(tree):
    """`using namespace` in a header is a decision for everybody who includes it."""
    for path in tree.sources():
        if path.endswith(HEADER_SUFFIXES):
            text = without_comments(tree.text(path))
            for match in re.finditer(r"\busing\s+(namespace)\b", text):
                yield Violation(path, text.count("\n", 0, match.start(1)) + 1, "using namespace in a header")


def top_level_holds_the_seven_folders(tree):
    """Seven folders, six files and dot files; nothing else."""
    seen = set()
    for path in tree.files:
        top = path.split("/")[0]
        if top in seen or top.startswith("."):
            continue
        seen.add(top)
        allowed = TOP_LEVEL_FOLDERS if "/" in path else TOP_LEVEL_FILES
        if top not in allowed:
            yield Violation(path, 1, f"the top level may hold {', '.join(sorted(allowed))} and dot files, not '{top}'")


# Folders in which people and machines keep checkouts and homes. A path under one of them works nowhere else.
MACHINE_FOLDERS = ("work", "workspace", "root", "home", "Users", "mnt", "scratch", "opt/peers", "data")
MACHINE_PATH = re.compile(r"(?<![\w.$}~*/-])/(?:" + "|".join(MACHINE_FOLDERS) + r")/[\w.-]")
TEXT_LIMIT_BYTES = 1 << 20


def no_file_names_a_path_of_one_machine(tree):
    """A clone must work anywhere, so no tracked text names where somebody's checkout or home lies."""
    for path in tree.files:
        if matches(path, DATA_FILES + CONTAINER_FILES) or (tree.root / path).stat().st_size > TEXT_LIMIT_BYTES or "\0" in tree.text(path):
            continue
        text = tree.text(path)
        for match in MACHINE_PATH.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield Violation(path, line, f"names a path of one machine: {match.group(0)}...")


RULES = {rule.__name__: rule for rule in (
    parts_include_only_what_lies_below_them,
    own_headers_are_named_from_the_root,
    foreign_headers_stay_in_their_places,
    feature_switches_stand_in_registries,
    libraries_neither_print_nor_exit_nor_read_the_environment,
    headers_have_a_guard_and_a_lecture,
    headers_open_no_namespace,
    top_level_holds_the_seven_folders,
    no_file_names_a_path_of_one_machine,
)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("rule", nargs="?", choices=sorted(RULES))
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--list", action="store_true", help="print the names of the rules")
    arguments = parser.parse_args()
    if arguments.list or arguments.rule is None:
        print("\n".join(RULES))
        return 0
    tree = Tree(arguments.root.resolve())
    if not tree.sources():
        print(f"{arguments.root}: no source files below; is this the root of the repository?", file=sys.stderr)
        return 1
    violations = list(RULES[arguments.rule](tree))
    for violation in violations:
        print(violation)
    print(f"{arguments.rule}: {len(violations)} violations in {len(tree.files)} files")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
