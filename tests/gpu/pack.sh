#!/usr/bin/env bash
# Packs a build made with the preset `cuda` for a GPU machine that has no network and none of our dependencies.
#
#   tests/gpu/pack.sh                  packs all programs of build/cuda/bin
#   tests/gpu/pack.sh kernels_test...  only these
#
# Writes .carry/aurora-gpu.tar.xz: the stripped programs and the shared libraries that they need and that such a
# machine may lack. Not packed: the C and C++ runtimes, the MPI library, CUDA and NCCL, which tests/gpu/run.sh finds
# there. Send the checkout with its folder .carry and start tests/gpu/run.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source_folder=$PWD
build=build/cuda

fail() {
  printf 'tests/gpu/pack.sh: %s\n' "$1" >&2
  exit 1
}

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "${BASH_SOURCE[0]}"
  exit 0
fi
[[ -d $build/bin ]] || fail "no $build/bin; run cmake --preset cuda && cmake --build --preset cuda first"
programs=("$@")
if [[ ${#programs[@]} -eq 0 ]]; then
  mapfile -t programs < <(cd "$build/bin" && find . -maxdepth 1 -type f -executable -printf '%f\n' | sort)
fi
[[ ${#programs[@]} -gt 0 ]] || fail "$build/bin has no programs; build it first"

package=$(mktemp -d)
trap 'rm -rf "$package"' EXIT
mkdir "$package/bin" "$package/lib"

# What the machine has itself: the dynamic loader, glibc, the C++ runtime, MPI, CUDA, NCCL.
is_there() {
  case $1 in
    linux-vdso* | ld-linux* | libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | libresolv.so.*) return 0 ;;
    libstdc++.so.* | libgcc_s.so.*) return 0 ;;
    libmpi* | libcuda* | libcublas* | libnccl* | libnvrtc* | libnvToolsExt*) return 0 ;;
  esac
  return 1
}

# Follows NEEDED entries by hand: ldd's list would also hold what MPI alone needs.
declare -A packed=()
pack_needed() {  # pack_needed FILE
  local name path
  while read -r name; do
    if is_there "$name" || [[ -n ${packed[$name]:-} ]]; then continue; fi
    path=$(ldd "$1" | awk -v name="$name" '$1 == name { print $3 }')
    [[ -f $path ]] || fail "$1 needs $name, which is not on this machine"
    packed[$name]=1
    install -m 755 "$path" "$package/lib/$name"
    strip --strip-unneeded "$package/lib/$name"
    pack_needed "$path"
  done < <(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
}

for program in "${programs[@]}"; do
  [[ -x $build/bin/$program ]] || fail "$build/bin/$program does not exist; build it first"
  pack_needed "$build/bin/$program"
  install -m 755 "$build/bin/$program" "$package/bin/$program"
  strip "$package/bin/$program"
done
# The programs look for test data where they were built.
printf '%s\n' "$source_folder" >"$package/source_folder"

mkdir -p .carry
tar -C "$package" -c . | xz -T0 -3 >.carry/aurora-gpu.tar.xz.part
mv .carry/aurora-gpu.tar.xz.part .carry/aurora-gpu.tar.xz
printf '%s programs and %s libraries in .carry/aurora-gpu.tar.xz, %s bytes\n' "${#programs[@]}" "${#packed[@]}" \
  "$(stat -c %s .carry/aurora-gpu.tar.xz)"
