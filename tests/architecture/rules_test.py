#!/usr/bin/env python3
"""Every rule in rules.py can fail: each case plants a violation in a small tree and names what must be found, and each
rule must let the same tree pass without it. A rule without a case here fails the last test."""
import tempfile
import unittest
from pathlib import Path

import rules

CLEAN_TREE = {
    "CMakeLists.txt": "project(aurora)\n",
    "scheduler/plan.h": "// A plan.\n#pragma once\n#include <vector>\n",
    "scheduler/plan.cc": '#include "scheduler/plan.h"\n\n#include <algorithm>\n',
    "kernels/error.h": "// Errors.\n#pragma once\n#include <string>\n",
    "kernels/cpu/gemm.cc": '#include <cblas.h>\n\n#include "kernels/error.h"\n',
    "kernels/backend_registry.cc": '#include "kernels/error.h"\n#if AURORA_CUDA\n#endif\n',
    "runtime/transport/transport.h": "// Transports.\n#pragma once\n#include <cstddef>\n",
    "runtime/transport/mpi_check.h": "// MPI's errors.\n#pragma once\n#include <mpi.h>\n",
    "runtime/transport/mpi_transport.cc": '#include <mpi.h>\n#include "runtime/transport/mpi_check.h"\n',
    "runtime/model/decoder.h": '// Decoders.\n#pragma once\n#include "runtime/transport/transport.h"\n',
    "runtime/executor/trace.h": '// Traces.\n#pragma once\n#include "runtime/model/decoder.h"\n',
    "runtime/engine.h": '// Engines.\n#pragma once\n#include "runtime/executor/trace.h"\n',
    "launch/aurora_serve.cc": '#include <spdlog/spdlog.h>\n#include "runtime/engine.h"\n'
                              'int main() { std::cout << std::getenv("HOME"); std::exit(0); }\n',
    "launch/models/tiny/tokenizer.json": '"a token: /' + 'root/x"\n',
    "tests/scheduler/plan_test.cc": '#include <gtest/gtest.h>\n#include "scheduler/plan.h"\n',
}

# (rule, file, its text, what a violation's text must contain)
PLANTED = [
    ("parts_include_only_what_lies_below_them", "scheduler/bad.cc", '#include "kernels/error.h"\n', "kernels/error.h"),
    ("parts_include_only_what_lies_below_them", "kernels/bad.h", '#include "scheduler/plan.h"\n', "scheduler/plan.h"),
    ("parts_include_only_what_lies_below_them", "kernels/bad.h", '#include "kernels/cpu/rows.h"\n', "kernels/cpu/rows.h"),
    ("parts_include_only_what_lies_below_them", "runtime/transport/bad.cc",
     '#include "runtime/moe/moe_block.h"\n', "runtime/moe/moe_block.h"),
    ("parts_include_only_what_lies_below_them", "runtime/model/bad.cc",
     '#include <vector>\n#include "runtime/executor/trace.h"\n', "bad.cc:2"),
    ("parts_include_only_what_lies_below_them", "runtime/executor/bad.cc", '#include "runtime/engine.h"\n', "engine.h"),
    ("parts_include_only_what_lies_below_them", "runtime/plan_io/bad.cc",
     '#include "runtime/transport/transport.h"\n', "transport.h"),
    ("parts_include_only_what_lies_below_them", "launch/bad.cc", '#include "runtime/moe/moe_block.h"\n', "moe_block.h"),
    ("parts_include_only_what_lies_below_them", "launch/bad.cc", '#include "tests/support/x.h"\n', "tests/support/x.h"),
    ("parts_include_only_what_lies_below_them", "runtime/odd/bad.cc", "", "belongs to no part"),
    ("own_headers_are_named_from_the_root", "scheduler/bad.cc", '#include "plan.h"\n', '"plan.h" is no file of ours'),
    ("own_headers_are_named_from_the_root", "scheduler/bad.cc", '#include <scheduler/plan.h>\n', "write it in quotes"),
    ("foreign_headers_stay_in_their_places", "scheduler/bad.cc", "#include <unistd.h>\n", "<unistd.h>"),
    ("foreign_headers_stay_in_their_places", "kernels/bad.cc", "#include <cblas.h>\n", "<cblas.h>"),
    ("foreign_headers_stay_in_their_places", "kernels/cpu/bad.h", "#include <cblas.h>\n", "<cblas.h>"),
    ("foreign_headers_stay_in_their_places", "kernels/cpu/bad.cc", "#include <cuda_runtime.h>\n", "cuda_runtime.h"),
    ("foreign_headers_stay_in_their_places", "runtime/engine.cc", "#include <mpi.h>\n", "<mpi.h>"),
    ("foreign_headers_stay_in_their_places", "runtime/engine.cc",
     '#include "runtime/transport/mpi_check.h"\n', "through runtime/transport/mpi_check.h -> mpi.h"),
    ("foreign_headers_stay_in_their_places", "runtime/transport/thread_transport.cc", "#include <nccl.h>\n", "<nccl.h>"),
    ("foreign_headers_stay_in_their_places", "runtime/model/bad.h", "#include <nlohmann/json.hpp>\n", "json.hpp"),
    ("foreign_headers_stay_in_their_places", "launch/bad.h", "#include <toml++/toml.h>\n", "toml.h"),
    ("foreign_headers_stay_in_their_places", "launch/bad.h", "#include <CLI/CLI.hpp>\n", "CLI.hpp"),
    ("foreign_headers_stay_in_their_places", "runtime/executor/bad.cc", "#include <spdlog/spdlog.h>\n", "spdlog.h"),
    ("foreign_headers_stay_in_their_places", "launch/bad.cc", "#include <boost/any.hpp>\n", "known dependencies"),
    ("feature_switches_stand_in_registries", "kernels/bad.cc", "int x;\n#ifdef AURORA_CUDA\n#endif\n", "bad.cc:2"),
    ("feature_switches_stand_in_registries", "runtime/bad.h", "#if defined(USE_MPI)\n#endif\n", "USE_MPI"),
    ("feature_switches_stand_in_registries", "launch/bad.cc", "#if __has_include(<nccl.h>)\n#endif\n", "__has_include"),
    ("libraries_neither_print_nor_exit_nor_read_the_environment", "runtime/bad.cc",
     'auto home = std::getenv("HOME");\n', "getenv touches the environment"),
    ("libraries_neither_print_nor_exit_nor_read_the_environment", "kernels/bad.cc",
     "// std::cout in a comment is fine\n/* so is\nexit(1) */\nvoid f() { std::cerr << 1; }\n", "bad.cc:4: cerr prints"),
    ("libraries_neither_print_nor_exit_nor_read_the_environment", "scheduler/bad.cc", 'void f() { printf("x"); }\n', "prints"),
    ("libraries_neither_print_nor_exit_nor_read_the_environment", "runtime/bad.cc", "void f() { std::exit(1); }\n", "exits"),
    ("libraries_neither_print_nor_exit_nor_read_the_environment", "runtime/bad.cc", "void f() { ::abort(); }\n", "aborts"),
    ("libraries_neither_print_nor_exit_nor_read_the_environment", "runtime/bad.cc",
     "void f() { std::signal(SIGINT, g); }\n", "signal"),
    ("libraries_neither_print_nor_exit_nor_read_the_environment", "runtime/bad.cc",
     "void f(int x) { assert(x > 0); }\n", "assert"),
    ("headers_have_a_guard_and_a_lecture", "runtime/model/bad.h", "#pragma once\n", "what this header is about"),
    ("headers_have_a_guard_and_a_lecture", "runtime/model/bad.h", "// A header.\n", "lacks #pragma once"),
    ("headers_open_no_namespace", "runtime/model/bad.h", "// H.\n#pragma once\nusing namespace std;\n", "bad.h:3"),
    ("top_level_holds_the_seven_folders", "notes.txt", "x\n", "notes.txt"),
    ("top_level_holds_the_seven_folders", "utils/a.cc", "\n", "utils"),
    ("top_level_holds_the_seven_folders", "docker", "a file where a folder belongs\n", "docker"),
    ("no_file_names_a_path_of_one_machine", "launch/bad.cc", 'auto x = "/' + 'home/ann/models";\n', "bad.cc:1"),
    ("no_file_names_a_path_of_one_machine", "tests/bad.sh", "cd /" + "root/build\n", "bad.sh:1"),
    ("no_file_names_a_path_of_one_machine", "README.md", "see `/" + "mnt/x`\n", "README.md:1"),
]

# What looks like a violation and is none: (file, its text).
ALLOWED = [
    ("runtime/engine.cc", 'void f(Transport& t) { t.abort("x"); session->exit(1); }\n'),
    ("runtime/engine.cc", '// std::getenv("X")\nconst char* text = "std::cout << printf(1)";\n'),
    ("runtime/engine.cc", "#if defined(__x86_64__)\n#endif\nvoid f() { std::snprintf(nullptr, 0, \"\"); }\n"),
    ("kernels/cpu/good.cc", "#include <immintrin.h>\nconstexpr int kLimit = 1'000'000;\n"),
    ("runtime/model/good.cc", "#include <sys/mman.h>\n#include <nlohmann/json.hpp>\n"),
    ("runtime/model/good.cc", 'auto raw = R"(#include "x.h"\nstd::cout << "\n)";\n'),
    ("launch/good.sh", 'cd "$HOME/' + 'work/x" && ls ../' + 'data/x https://example.org/' + 'home/y\n'),
]


def violations(rule, files):
    with tempfile.TemporaryDirectory() as folder:
        for path, text in files.items():
            if path == "docker" or not (Path(folder) / path).exists():
                (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).write_text(text)
        return [str(v) for v in rules.RULES[rule](rules.Tree(Path(folder)))]


class RulesTest(unittest.TestCase):
    def test_each_rule_lets_a_clean_tree_pass(self):
        for rule in rules.RULES:
            with self.subTest(rule):
                self.assertEqual(violations(rule, CLEAN_TREE), [])

    def test_each_planted_violation_is_found_and_nothing_else(self):
        for rule, path, text, expected in PLANTED:
            with self.subTest(f"{rule}: {path}: {expected}"):
                found = violations(rule, {**CLEAN_TREE, path: text})
                self.assertEqual(len(found), 1, found)
                self.assertIn(path, found[0])
                self.assertIn(expected, found[0])

    def test_what_only_looks_like_a_violation_passes(self):
        for path, text in ALLOWED:
            for rule in rules.RULES:
                with self.subTest(f"{rule}: {path}: {text}"):
                    self.assertEqual(violations(rule, {**CLEAN_TREE, path: text}), [])

    def test_each_rule_has_a_planted_violation(self):
        self.assertEqual({case[0] for case in PLANTED}, set(rules.RULES))


if __name__ == "__main__":
    unittest.main()
