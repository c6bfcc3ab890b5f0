# shellcheck shell=bash
# Unpacks what tests/gpu/pack.sh has packed; sourced by the other scripts of this folder, where `logs` names a folder
# and `fail` is a function. Makes that folder, goes to the root of the checkout, and sets `package`, a folder with bin/
# and lib/ that goes when the script ends, `library_path`, and `machine_library_path`, LD_LIBRARY_PATH as it was: for
# programs that bring their own CUDA.

mkdir -p "$logs"
logs=$(realpath "$logs")
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
[[ -f .carry/aurora-gpu.tar.xz ]] || fail "no .carry/aurora-gpu.tar.xz; make it with tests/gpu/pack.sh"
package=$(mktemp -d)
trap 'rm -rf "$package"' EXIT
# shellcheck disable=SC2154
tar -xJf .carry/aurora-gpu.tar.xz -C "$package" 2>"$logs/unpack.log" ||
  python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' .carry/aurora-gpu.tar.xz "$package"
rm -f "$logs/unpack.log"

require_packed() {  # require_packed PROGRAM
  [[ -x $package/bin/$1 ]] || fail "$1 is not in the package; tests/gpu/pack.sh packs what was built"
}

# The programs look for test data where they were built.
built_in=$(cat "$package/source_folder")
if [[ $built_in != "$PWD" && ! -e $built_in ]]; then
  mkdir -p "$(dirname "$built_in")"
  ln -sfn "$PWD" "$built_in"
fi

# Folders of the libraries that are not packed: the toolkit's, else those inside Python's wheels.
library_folders() {
  local name path
  for name in libcudart.so.13 libcublas.so.13 libcublasLt.so.13 libnccl.so.2; do
    for path in /usr/local/cuda*/lib64/"$name" /usr/local/cuda*/targets/*/lib/"$name" /usr/lib/x86_64-linux-gnu/"$name" \
      /usr/lib/python3*/*-packages/nvidia/*/lib/"$name" /usr/local/lib/python3*/*-packages/nvidia/*/lib/"$name" \
      /opt/*/lib/python3*/site-packages/nvidia/*/lib/"$name"; do
      if [[ -e $path ]]; then
        dirname "$path"
        break
      fi
    done
  done | awk '!seen[$0]++'
}
# shellcheck disable=SC2034
machine_library_path=${LD_LIBRARY_PATH:-}
library_path=$(library_folders | paste -sd:)
export LD_LIBRARY_PATH=$package/lib${library_path:+:$library_path}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export OPENBLAS_NUM_THREADS=1
