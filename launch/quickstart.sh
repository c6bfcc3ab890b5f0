#!/usr/bin/env bash
# From a fresh clone to text from two models: installs what is missing, builds aurora-serve, answers the prompts of
# launch/configs/example_prompts.jsonl on eight MPI ranks and shows prompts, continuations and a summary.
#
#   launch/quickstart.sh [--ranks N] [--] [further options of aurora-serve]
#
# Answers and report are left in build/quickstart/. Works from any directory, as root and not.
set -euo pipefail

usage() {
  sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "${BASH_SOURCE[0]}"
}

num_ranks=8
while [[ $# -gt 0 ]]; do
  case $1 in
    --ranks) num_ranks=${2:?--ranks needs a number}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    *) break ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
prompts=launch/configs/example_prompts.jsonl
results=build/quickstart

# Shows answers beside their prompts: both files hold one line for each prompt, in the same order. awk, because neither
# jq nor Python is sure to be here; string_field reads a JSON string, which no other text on the line can be taken for.
show_answers() {
  awk '
    function string_field(line, key,    at, rest, out, c) {
      if (!match(line, "\"" key "\" *: *\"")) return ""
      rest = substr(line, RSTART + RLENGTH)
      out = ""
      for (at = 1; at <= length(rest); at++) {
        c = substr(rest, at, 1)
        if (c == "\"") break
        if (c == "\\") {
          c = substr(rest, ++at, 1)
          if (c == "n") c = "\n"
          else if (c == "t") c = "\t"
          else if (c == "r" || c == "b" || c == "f") c = " "
          else if (c == "u") { c = "\\u" substr(rest, at + 1, 4); at += 4 }
        }
        out = out c
      }
      return out
    }
    /^[ \t\r]*$/ { next }
    FNR == NR {
      prompt[++num_prompts] = string_field($0, "prompt")
      if (match($0, /"prompt_token_ids" *: *\[[^]]*\]/)) prompt[num_prompts] = substr($0, RSTART, RLENGTH)
      next
    }
    {
      num_answers++
      text = string_field($0, "text")
      error = string_field($0, "error")
      gsub(/\n/, "\n    ", text)
      printf "\n%s%s%s   (%s)\n    %s\n", bold, prompt[num_answers], plain, string_field($0, "model"),
             error == "" ? text : "failed: " error
    }
    END { if (num_answers != num_prompts) { print num_answers " answers to " num_prompts " prompts"; exit 1 } }
  ' bold="$1" plain="$2" "$prompts" "$results/answers.jsonl"
}

launch/install_dependencies.sh
# The tests are configured only where what they need is there; tests/run.sh installs it and switches them on.
# Warnings stay warnings: a compiler newer than ours may know more of them.
if launch/install_dependencies.sh --test --check 2>/dev/null; then
  cmake --preset release -DAURORA_WERROR=OFF
else
  cmake --preset release -DAURORA_WERROR=OFF -DAURORA_TESTS=OFF -DAURORA_BENCHMARKS=OFF
fi
cmake --build build/release --target aurora-serve --parallel "$(launch/build_jobs.sh)"

# More ranks than cores are fine; root and idle ranks have to be told so. Open MPI's own variables, so that a setting
# of yours beats them.
export OMPI_MCA_rmaps_base_oversubscribe=${OMPI_MCA_rmaps_base_oversubscribe:-1}
export OMPI_MCA_hwloc_base_binding_policy=${OMPI_MCA_hwloc_base_binding_policy:-none}
export OMPI_MCA_mpi_yield_when_idle=${OMPI_MCA_mpi_yield_when_idle:-1}
if [[ $(id -u) -eq 0 ]]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
mkdir -p "$results"
command=(mpirun -np "$num_ranks" build/release/bin/aurora-serve
  --models "launch/configs/tiny-mixtral.cfg,launch/configs/tiny-qwen3-moe.cfg"
  --prompts "$prompts" --output "$results/answers.jsonl" --report "$results/report.json" "$@")
printf '\n%s\n\n' "${command[*]}"
"${command[@]}"

bold='' plain=''
if [[ -t 1 ]]; then
  bold=$'\e[1m' plain=$'\e[0m'
fi
show_answers "$bold" "$plain"
printf '\nAnswers: %s/answers.jsonl   report: %s/report.json   formats: launch/formats.md\n' "$results" "$results"
