// Which x86 instruction set the CPU kernels use. The program is built for plain x86-64 and runs anywhere; the
// hot loops are compiled once per instruction set and chosen here at run time.
//
// The choice changes speed, never results: all variants do the same float32 operations in the same order (see
// the exception in gemm.h, for the mode that is not deterministic).
#pragma once

#include <cstdint>

#include "kernels/cpu/simd.h"

namespace aurora::cpu {

enum class Isa : std::uint8_t {
  kBaseline,  // SSE2
  kAvx2,      // AVX2 and FMA
  kAvx512,    // AVX-512 F, BW, DQ, VL
};

/// The best that this processor has.
Isa detected_isa();

/// What the kernels use now: `detected_isa()`, or less when limited.
Isa active_isa();

/// Uses nothing better than `limit` from now on, in the whole process. For tests and measurements.
void limit_isa(Isa limit);

/// Calls `Body::run<L>(args...)` compiled for the active instruction set, L being the `Lanes` (simd.h) that
/// fit its registers. `Body::run` and what it calls must be always inlined; the arguments are cheap to copy.
template <typename Body, typename... Args>
void run_for_active_isa(Args... args);

// Implementation.

#if defined(__x86_64__)
template <typename Body, typename... Args>
[[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]] void run_avx512(Args... args) {
  Body::template run<Lanes<64>>(args...);
}

template <typename Body, typename... Args>
[[gnu::target("avx2,fma")]] void run_avx2(Args... args) {
  Body::template run<Lanes<32>>(args...);
}

template <typename Body, typename... Args>
void run_for_active_isa(Args... args) {
  switch (active_isa()) {
    case Isa::kAvx512:
      return run_avx512<Body>(args...);
    case Isa::kAvx2:
      return run_avx2<Body>(args...);
    case Isa::kBaseline:
      return Body::template run<Lanes<16>>(args...);
  }
}
#else
template <typename Body, typename... Args>
void run_for_active_isa(Args... args) {
  Body::template run<Lanes<16>>(args...);
}
#endif

}  // namespace aurora::cpu
