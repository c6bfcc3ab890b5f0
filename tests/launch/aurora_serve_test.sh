#!/usr/bin/env bash
# The program as a user meets it: exit codes, messages, files, signals. One case per run:
#   aurora_serve_test.sh PROGRAM CASE
# Every case is a function below; ctest lists them through CMakeLists.txt. No case waits without a deadline.
set -uo pipefail

program=$1
case_name=$2
source_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mpirun=$source_folder/tests/support/mpirun.sh
mixtral=$source_folder/launch/configs/tiny-mixtral.cfg
qwen=$source_folder/launch/configs/tiny-qwen3-moe.cfg
example=$source_folder/launch/configs/example_prompts.jsonl
folder=$(mktemp -d "${TMPDIR:-/tmp}/aurora-serve-test.XXXXXX")
trap 'rm -rf "$folder"' EXIT
export OPENBLAS_NUM_THREADS=1
unset "${!AURORA_@}"

fail() {
  echo "FAILED: $*" >&2
  [[ -f $folder/log ]] && sed 's/^/  log: /' "$folder/log" >&2
  exit 1
}

# serve ARGUMENTS...: runs the program on three ranks, as threads; standard error goes to $folder/log, the exit code to $code.
serve() {
  timeout 120 "$program" --transport threads --ranks 3 "$@" 2>"$folder/log" </dev/null
  code=$?
}

# serve_mpi ARGUMENTS...: the same as MPI processes.
serve_mpi() {
  timeout 120 "$mpirun" -np 3 "$program" "$@" 2>"$folder/log" </dev/null
  code=$?
}

expect_code() { [[ $code == "$1" ]] || fail "$2: exit code $code instead of $1"; }

# Exactly one error line, which matches $1 and names a rank.
expect_one_error() {
  local errors
  errors=$(grep -c '\[error\]' "$folder/log")
  [[ $errors == 1 ]] || fail "$errors error lines instead of one"
  grep '\[error\] \[rank [0-9]*\]' "$folder/log" | grep -qE "$1" || fail "no error line matches: $1"
}

# expect_refusal PATTERN ARGUMENTS...: both transports fail with code 1 and one message, and write no answer.
expect_refusal() {
  local pattern=$1
  shift
  for transport in serve serve_mpi; do
    $transport --output "$folder/answers.jsonl" "$@"
    expect_code 1 "$transport $*"
    expect_one_error "$pattern"
    [[ ! -e $folder/answers.jsonl ]] || fail "a failed run left answers.jsonl"
  done
}

# A copy of tiny-mixtral to damage, and a configuration for it, in $folder/NAME.
damaged_copy() {
  mkdir "$folder/$1"
  cp "$source_folder"/launch/models/tiny-mixtral/{config.json,generation_config.json,tokenizer.json,tokenizer_config.json,model.safetensors} \
    "$folder/$1"
  chmod u+w "$folder/$1"/*
  echo "path = \"$1\"" >"$folder/$1.cfg"
}

# ids_and_texts FILE: what must not depend on how a run was made: everything but the times.
ids_and_texts() { sed 's/,"timing":{[^}]*}//' "$1"; }

case_answers_are_the_same_on_both_transports_and_any_number_of_ranks() {
  for ranks in 1 2 5; do
    timeout 120 "$program" --transport threads --ranks "$ranks" --models "$mixtral,$qwen" --prompts "$example" \
      --output "$folder/threads.$ranks" --deterministic --quiet </dev/null || fail "threads, $ranks ranks"
    timeout 120 "$mpirun" -np "$ranks" "$program" --models "$mixtral,$qwen" --prompts "$example" \
      --output "$folder/mpi.$ranks" --deterministic --quiet </dev/null || fail "MPI, $ranks ranks"
    for file in threads mpi; do
      diff <(ids_and_texts "$folder/threads.1") <(ids_and_texts "$folder/$file.$ranks") || fail "$file on $ranks ranks"
    done
  done
  [[ $(wc -l <"$folder/threads.1") == $(wc -l <"$example") ]] || fail "not one answer for each prompt"
  # The reference continuation of this prompt, from launch/models/tiny-mixtral/reference.json.
  grep -q '"custom_id":"history".*"text":"the ...y fact they come on the errors' "$folder/threads.1" ||
    fail "the answer to \"history\" is not the reference's"
}

case_bad_lines_fail_alone_and_the_exit_code_says_so() {
  cat >"$folder/in.jsonl" <<'LINES'
{"custom_id": "good-1", "model": "tiny-mixtral", "prompt": "The history of", "max_tokens": 4}
{"custom_id": "broken
{"custom_id": "unknown-model", "model": "tiny-mixtrall", "prompt": "x"}
{"custom_id": "unknown-field", "model": "tiny-mixtral", "prompt": "x", "temprature": 1}
{"custom_id": "no-such-token", "model": "tiny-qwen3-moe", "prompt_token_ids": [99999]}
{"custom_id": "good-1", "model": "tiny-mixtral", "prompt": "again"}

{"model": "tiny-qwen3-moe", "prompt": "1, 2, 3, 4,", "max_tokens": 4}
LINES
  printf '{"model": "tiny-mixtral", "prompt": "\xff"}\n' >>"$folder/in.jsonl"
  # 2000 tokens where the model allows 1024.
  printf '{"custom_id": "too-long", "model": "tiny-mixtral", "prompt_token_ids": [%s5]}\n' "$(printf '5,%.0s' {1..1999})" \
    >>"$folder/in.jsonl"
  for transport in serve serve_mpi; do
    $transport --models "$mixtral,$qwen" --prompts "$folder/in.jsonl" --output "$folder/out.jsonl"
    expect_code 2 "$transport"
    [[ $(wc -l <"$folder/out.jsonl") == 9 ]] || fail "not one answer for each line"
    [[ $(grep -c '"error":' "$folder/out.jsonl") == 7 ]] || fail "not the seven bad lines failed"
    for pattern in '^{"custom_id":"good-1",.*"token_ids":\[[0-9,]*\],"finish_reason":"length"' \
      '^{"custom_id":"2","error":"line 2: malformed JSON' \
      '^{"custom_id":"unknown-model",.*did you mean \\"tiny-mixtral\\"' \
      '^{"custom_id":"unknown-field",.*did you mean \\"temperature\\"' \
      '^{"custom_id":"no-such-token",.*"error":"line 5: .*99999' \
      '^{"custom_id":"good-1",.*"error":"line 6: .*line 1' \
      '^{"custom_id":"8",.*"finish_reason":' \
      '^{"custom_id":"9","error":"line 9: byte [0-9]* is not valid UTF-8"' \
      '^{"custom_id":"too-long",.*"error":"line 10: .*1024'; do
      grep -qE "$pattern" "$folder/out.jsonl" || fail "no answer matches $pattern: $(cut -c1-200 "$folder/out.jsonl")"
    done
    rm "$folder/out.jsonl"
  done
}

case_bad_configurations_are_refused_with_one_message() {
  expect_refusal 'missing.cfg does not exist' --models "$mixtral,$folder/missing.cfg" --prompts "$example"
  echo 'path = ' >"$folder/broken.cfg"
  expect_refusal 'broken.cfg, line 1, column' --models "$folder/broken.cfg" --prompts "$example"
  printf 'path = "x"\nkv_cahce_mb = 3\n' >"$folder/key.cfg"
  expect_refusal 'key.cfg, line 2: unknown key "kv_cahce_mb"; did you mean "kv_cache_mb"' \
    --models "$folder/key.cfg" --prompts "$example"
  expect_refusal 'two models are named "tiny-mixtral"' --models "$mixtral,$mixtral" --prompts "$example"
  expect_refusal 'missing.jsonl' --models "$mixtral" --prompts "$folder/missing.jsonl"
  expect_refusal 'no/such/report.json' --models "$mixtral" --prompts "$example" --report "$folder/no/such/report.json"
  expect_refusal 'missing.toml' --models "$mixtral" --prompts "$example" --cluster "$folder/missing.toml"
  expect_refusal 'missing.json' --models "$mixtral" --prompts "$example" --plan "$folder/missing.json"
  expect_refusal 'missing.json' --models "$mixtral" --prompts "$example" --replay-routing "$folder/missing.json"
  expect_refusal 'missing.json' --models "$mixtral" --prompts "$example" --traffic "$folder/missing.json"
  expect_refusal 'not in this build, which has' --models "$mixtral" --prompts "$example" --backend cuda
}

case_bad_checkpoints_are_refused_with_one_message() {
  printf 'path = "nowhere"\n' >"$folder/nowhere.cfg"
  expect_refusal 'nowhere' --models "$folder/nowhere.cfg" --prompts "$example"
  damaged_copy truncated
  truncate -s 100000 "$folder/truncated/model.safetensors"
  expect_refusal 'truncated/model.safetensors' --models "$folder/truncated.cfg" --prompts "$example"
  damaged_copy overflow
  printf '\xff\xff\xff\xff\xff\xff\xff\x7f' | dd of="$folder/overflow/model.safetensors" conv=notrunc status=none
  expect_refusal 'overflow/model.safetensors' --models "$folder/overflow.cfg" --prompts "$example"
  damaged_copy renamed
  LC_ALL=C sed -i 's/"model.norm.weight"/"model.norm.weighx"/' "$folder/renamed/model.safetensors"
  expect_refusal 'model.norm.weight' --models "$folder/renamed.cfg" --prompts "$example"
  damaged_copy misshapen
  LC_ALL=C sed -i 's/"shape":\[2048,128\]/"shape":[128,2048]/' "$folder/misshapen/model.safetensors"
  expect_refusal 'model.embed_tokens.weight' --models "$folder/misshapen.cfg" --prompts "$example"
  damaged_copy dtype
  LC_ALL=C sed -i 's/"BF16"/"BF61"/' "$folder/dtype/model.safetensors"
  expect_refusal 'dtype/model.safetensors' --models "$folder/dtype.cfg" --prompts "$example"
  damaged_copy architecture
  sed -i 's/MixtralForCausalLM/LlamaForCausalLM/; s/"mixtral"/"llama"/' "$folder/architecture/config.json"
  expect_refusal 'LlamaForCausalLM' --models "$folder/architecture.cfg" --prompts "$example"
  damaged_copy tokenizer
  truncate -s 1000 "$folder/tokenizer/tokenizer.json"
  expect_refusal 'tokenizer/tokenizer.json' --models "$folder/tokenizer.cfg" --prompts "$example"
  damaged_copy noconfig
  echo '[1, 2' >"$folder/noconfig/config.json"
  expect_refusal 'noconfig/config.json' --models "$folder/noconfig.cfg" --prompts "$example"
}

case_a_checkpoint_that_is_bad_on_check_is_bad_in_the_same_words() {
  damaged_copy renamed
  LC_ALL=C sed -i 's/"model.norm.weight"/"model.norm.weighx"/' "$folder/renamed/model.safetensors"
  serve --models "$folder/renamed.cfg" --check
  expect_code 1 "--check"
  expect_one_error 'model.norm.weight'
}

case_more_ranks_than_experts_are_refused() {
  timeout 120 "$program" --ranks 9 --models "$mixtral" --check 2>"$folder/log" >/dev/null
  code=$?
  expect_code 1 "nine ranks"
  expect_one_error '9 ranks, but the models that they serve have 8 experts'
}

case_mistakes_on_the_command_line_are_told_once() {
  for arguments in "--modles x" "--models $mixtral --order rotaton" "--models $mixtral --ranks two" ""; do
    # shellcheck disable=SC2086
    serve_mpi $arguments
    expect_code 1 "$arguments"
    [[ $(grep -c '^aurora-serve: ' "$folder/log") == 1 ]] || fail "not one message for: $arguments"
  done
  timeout 120 "$mpirun" -np 2 "$program" --models "$mixtral" --transport threads 2>"$folder/log"
  code=$?
  expect_code 1 "threads under mpirun"
  grep -q 'the launcher started 2 processes' "$folder/log" || fail "threads in two processes were not refused"
}

case_check_prints_the_plan_and_judges_the_prompts() {
  serve --models "$mixtral,$qwen" --check --prompts "$example" --output "$folder/out.jsonl" >"$folder/plan"
  expect_code 0 "--check"
  grep -q '^Deployment plan: 3 ranks' "$folder/plan" || fail "no headline"
  grep -q '^tiny-qwen3-moe: Qwen3MoeForCausalLM, 4 MoE layers, 16 experts' "$folder/plan" || fail "no model line"
  [[ ! -e $folder/out.jsonl && ! -e $folder/out.jsonl.partial ]] || fail "--check wrote answers"
  echo '{"prompt": 5}' >"$folder/in.jsonl"
  serve --models "$mixtral" --check --prompts "$folder/in.jsonl" >/dev/null
  expect_code 2 "--check of bad prompts"
}

case_dump_config_shows_values_and_sources() {
  AURORA_PORT_GBPS=40 serve --models "$mixtral" --order exact --dump-config >"$folder/dump"
  expect_code 0 "--dump-config"
  grep -qE '^order = "exact" +# flag --order' "$folder/dump" || fail "flag: $(cat "$folder/dump")"
  grep -qE '^port_gbps = 40.0 +# variable AURORA_PORT_GBPS' "$folder/dump" || fail "variable"
  grep -qE '^path = .* # file' "$folder/dump" || fail "file"
  grep -qE '^schedule = .* # default' "$folder/dump" || fail "default"
}

case_a_plan_routing_and_traffic_that_were_written_can_be_read() {
  serve --models "$mixtral,$qwen" --prompts "$example" --output "$folder/first" --deterministic \
    --plan-out "$folder/plan.json" --record-routing "$folder/routing.json" --record-traffic "$folder/traffic.json" \
    --report "$folder/report.json" --trace "$folder/trace.json"
  expect_code 0 "recording"
  for file in plan.json report.json trace.json {routing,traffic}.tiny-{mixtral,qwen3-moe}.json; do
    [[ -s $folder/$file ]] || fail "$file is missing"
  done
  serve --models "$mixtral,$qwen" --prompts "$example" --output "$folder/second" --deterministic \
    --plan "$folder/plan.json"
  expect_code 0 "serving from a plan"
  diff <(ids_and_texts "$folder/first") <(ids_and_texts "$folder/second") || fail "a plan file changed the answers"
  serve --models "$mixtral,$qwen" --prompts "$example" --output "$folder/third" --deterministic \
    --traffic "tiny-mixtral=$folder/traffic.tiny-mixtral.json,tiny-qwen3-moe=$folder/traffic.tiny-qwen3-moe.json"
  expect_code 0 "planning from traffic"
  diff <(ids_and_texts "$folder/first") <(ids_and_texts "$folder/third") || fail "another placement changed the answers"
}

case_replayed_routing_gives_the_answers_that_it_was_recorded_with() {
  grep tiny-mixtral "$example" >"$folder/in.jsonl"
  serve --models "$mixtral" --prompts "$folder/in.jsonl" --output "$folder/first" --deterministic \
    --record-routing "$folder/routing.json"
  expect_code 0 "recording"
  serve --models "$mixtral" --prompts "$folder/in.jsonl" --output "$folder/second" --deterministic \
    --replay-routing "$folder/routing.json"
  expect_code 0 "replaying"
  diff <(ids_and_texts "$folder/first") <(ids_and_texts "$folder/second") || fail "replayed routing changed the answers"
}

case_a_plan_changes_while_serving_and_the_report_says_so() {
  # Slow ports and a bad plan to begin with: all experts but one of each model on rank 0.
  local index
  for index in {1..240}; do
    printf '{"model": "%s", "prompt": "The history of the number %d", "max_tokens": 24, "ignore_eos": true}\n' \
      "$([[ $((index % 2)) == 0 ]] && echo tiny-mixtral || echo tiny-qwen3-moe)" "$index"
  done >"$folder/many.jsonl"
  python3 - >"$folder/bad.json" <<'PLAN'
import json
layer = lambda experts: {"experts": [[{"gpu": 0 if e < experts - 2 else e - experts + 3}] for e in range(experts)]}
print(json.dumps({"version": 1, "num_gpus": 3, "models": [
    {"model": "tiny-mixtral", "layers": [layer(8)] * 4}, {"model": "tiny-qwen3-moe", "layers": [layer(16)] * 4}]}))
PLAN
  local common=(--models "$mixtral,$qwen" --prompts "$folder/many.jsonl" --max-batch-requests 4 --deterministic
    --plan "$folder/bad.json" --port-gbps 0.1)
  serve "${common[@]}" --output "$folder/still.jsonl" --report "$folder/still.json"
  expect_code 0 "without re-planning"
  grep -q '"replan": null' "$folder/still.json" || fail "a report of re-planning that was off"
  for transport in serve serve_mpi; do
    $transport "${common[@]}" --output "$folder/moved.jsonl" --report "$folder/moved.json" \
      --replan interval --replan-interval 8 --replan-horizon 100000
    expect_code 0 "$transport with re-planning"
    diff <(ids_and_texts "$folder/still.jsonl") <(ids_and_texts "$folder/moved.jsonl") || fail "$transport: other answers"
    grep -q 'plan 2 serves from step' "$folder/log" || fail "$transport: the log names no change of plans"
    python3 - "$folder/moved.json" <<'CHECK' || fail "$transport: the report of re-planning is wrong"
import json, sys
replan = json.load(open(sys.argv[1]))["replan"]
first = replan["switches"][0]
predicted = first["predicted_step_us"]
assert replan["mode"] == "interval" and replan["evaluations"] >= 1 and not replan["failed_moves"], replan
assert first["epoch"] == 2 and first["experts_moved"] > 0 and first["bytes_moved"] > 0, first
assert predicted["after"] < 0.9 * predicted["before"], first
assert first["decided_step"] < first["switched_step"], first
assert replan["switches"][-1]["measured_us_per_token"]["before"] > 0, replan
CHECK
  done
}

case_standard_input_is_answered_as_answers_finish() {
  coproc server { timeout 120 "$program" --transport threads --ranks 2 --models "$mixtral" 2>"$folder/log"; }
  local answer
  for id in one two; do
    echo "{\"custom_id\": \"$id\", \"prompt\": \"The history of\", \"max_tokens\": 3}" >&"${server[1]}"
    # The answer comes while standard input stays open.
    read -r -t 60 answer <&"${server[0]}" || fail "no answer to $id within a minute"
    [[ $answer == "{\"custom_id\":\"$id\",\"model\":\"tiny-mixtral\",\"text\":"* ]] || fail "odd answer: $answer"
  done
  # shellcheck disable=SC2154  # coproc sets it
  local input=${server[1]} pid=$server_PID
  exec {input}>&-
  wait "$pid"
  code=$?
  expect_code 0 "end of input"
}

case_a_full_disk_ends_the_run() {
  for transport in serve serve_mpi; do
    $transport --models "$mixtral,$qwen" --prompts "$example" --output /dev/full
    expect_code 1 "$transport"
    expect_one_error 'cannot write /dev/full: No space left'
  done
}

# Prompts that keep a run busy far longer than the tests wait, with short answers first.
write_long_prompts() {
  for ((i = 0; i < 2000; ++i)); do
    echo "{\"prompt\": \"The history of\", \"max_tokens\": $((2 + i / 2)), \"seed\": $i, \"ignore_eos\": true}"
  done >"$folder/long.jsonl"
}

# start_long COMMAND...: a run in the background, as $pid, that has given its first answer.
start_long() {
  rm -f "$folder"/out.jsonl*
  # In the foreground group, so that `timeout` passes a signal on once.
  timeout --foreground 120 "$@" --models "$mixtral" --prompts "$folder/long.jsonl" --output "$folder/out.jsonl" \
    2>"$folder/log" </dev/null &
  pid=$!
  timeout 100 grep -q -m1 custom_id <(timeout 100 tail -n +1 -F "$folder/out.jsonl.partial" 2>/dev/null) ||
    fail "no first answer"
}

expect_failed_end() {
  wait "$pid"
  code=$?
  [[ $code != 0 && $code != 2 && $code != 124 ]] || fail "$1 ended with $code"
  [[ -s $folder/out.jsonl.partial ]] || fail "$1: the answers so far are gone"
  [[ ! -e $folder/out.jsonl ]] || fail "$1: the run looks complete"
  ! pgrep -f -- "--prompts $folder/long.jsonl" >/dev/null || fail "$1: a process is left: $(pgrep -af "$folder")"
}

case_signals_end_every_rank_and_keep_the_answers() {
  write_long_prompts
  for signal in INT TERM; do
    start_long "$program" --transport threads --ranks 3
    kill "-$signal" "$pid"
    expect_failed_end "SIG$signal to threads"
    expect_one_error "interrupted by SIG$signal"
    [[ $code == $((128 + $(kill -l "$signal"))) ]] || fail "SIG$signal to threads: exit code $code"
    start_long "$mpirun" -np 3 "$program"
    kill "-$signal" "$pid"
    expect_failed_end "SIG$signal to mpirun"
    expect_one_error "interrupted by SIG"
  done
}

case_a_rank_that_is_stuck_or_killed_ends_the_run() {
  write_long_prompts
  for signal in STOP KILL; do
    start_long "$mpirun" -np 3 "$program" --timeout 2
    kill "-$signal" "$(pgrep -n -f -- "$program .*--prompts $folder/long.jsonl")"
    expect_failed_end "SIG$signal to a rank"
    # Who waits says so: in an exchange the step executor, between steps the control plane.
    if [[ $signal == STOP ]]; then
      expect_one_error "another rank is stuck or gone|deadline passed"
    fi
  done
}

declare -F "case_$case_name" >/dev/null || fail "no case is named $case_name"
"case_$case_name"
echo "passed: $case_name"
