// Hopper's asynchronous units in the words of this project: barriers in shared memory that count arrivals and
// bytes, the bulk copy engine, and the products of a warpgroup (four consecutive warps).
//
// PTX ISA 8.7, sections 9.7.13 (mbarrier), 9.7.9 (cp.async, cp.async.bulk.tensor) and 9.7.15 (wgmma).
// Addresses of shared memory are 32-bit. Files that include this are compiled for sm_90a alone.
#pragma once

#include <cstdint>

#include "kernels/cuda/tensor_map.h"

namespace aurora::cuda {

inline constexpr int kWarpgroup = 128;  // threads

using SharedAddress = std::uint32_t;

__device__ inline SharedAddress shared_address(const void* data) {
  return static_cast<SharedAddress>(__cvta_generic_to_shared(data));
}

// ---- barriers: 8 bytes of shared memory each ----

__device__ inline void init_barrier(SharedAddress barrier, int num_arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(num_arrivals) : "memory");
}

/// After the initialisation and before the block's synchronisation: the copy engine sees the barriers too.
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void arrive(SharedAddress barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// Arrives, and lets the phase wait for so many bytes of the copy engine as well.
__device__ inline void arrive_and_expect(SharedAddress barrier, std::uint32_t num_bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(num_bytes)
               : "memory");
}

/// Returns when the phase of this parity is complete.
__device__ inline void wait_for(SharedAddress barrier, std::uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// ---- clusters: blocks that run side by side and reach each other's shared memory ----

/// This block's number in its cluster.
__device__ inline int block_in_cluster() {
  std::uint32_t number;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(number));
  return static_cast<int>(number);
}

/// Waits for all threads of the cluster; what they wrote to shared memory is seen.
__device__ inline void synchronize_cluster() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

/// Arrives at the barrier that lies at the same place in block `block` of the cluster. Says that reading is
/// over, not that something was written: ordering writes to the other block takes a fence that would cost
/// more than a slice of a product.
__device__ inline void arrive_in(int block, SharedAddress barrier) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [there];\n"
      "}\n" ::"r"(barrier),
      "r"(block)
      : "memory");
}

/// Stores a word to the place of block `block` of the cluster where `place` is in this one, and counts its
/// bytes at that block's `barrier`; who has waited for them there sees the word.
__device__ inline void store_in(int block, SharedAddress place, std::uint32_t word, SharedAddress barrier) {
  asm volatile(
      "{\n"
      ".reg .b32 there, its_barrier;\n"
      "mapa.shared::cluster.u32 there, %0, %3;\n"
      "mapa.shared::cluster.u32 its_barrier, %2, %3;\n"
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [there], %1, [its_barrier];\n"
      "}\n" ::"r"(place),
      "r"(word), "r"(barrier), "r"(block)
      : "memory");
}

// ---- copies ----

/// One box of a tensor map, from its element (column, row) on, to shared memory.
__device__ inline void copy_box(SharedAddress destination, const TensorMap* map, std::int32_t column,
                                std::int32_t row, SharedAddress barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
      "%3}], "
      "[%4];" ::"r"(destination),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

/// The same, of what is not read again: the cache gives it up first.
__device__ inline void copy_box_once(SharedAddress destination, const TensorMap* map, std::int32_t column,
                                     std::int32_t row, SharedAddress barrier) {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1, {%2, %3}], [%4], %5;" ::"r"(destination),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "l"(policy)
      : "memory");
}

/// The same as copy_box, to the same place of all blocks of the cluster in the mask `blocks`, and to the
/// barrier of each.
__device__ inline void copy_box_to(std::uint16_t blocks, SharedAddress destination, const TensorMap* map,
                                   std::int32_t column, std::int32_t row, SharedAddress barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
      "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(destination),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
      : "memory");
}

/// 16 bytes of which the first `num_bytes` (0 or 16) are copied and the others zero.
__device__ inline void copy_16(SharedAddress destination, const void* source, std::uint32_t num_bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(source), "r"(num_bytes)
               : "memory");
}

/// Arrives when all copies that this thread has started are there.
__device__ inline void arrive_after_copies(SharedAddress barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/// What threads have written to shared memory, by copies of 16 bytes too, before a barrier that this thread
/// has waited for, is seen by the warpgroup products that it begins from here on.
__device__ inline void see_shared_writes() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- warpgroups ----

template <int kRegisters>
__device__ void give_registers_back() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
__device__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

/// Synchronises `num_threads` threads that use barrier `number`, 1 to 15, of the block.
__device__ inline void synchronize(int number, int num_threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(num_threads) : "memory");
}

/// Stores two 8 x 8 matrices of 16-bit elements transposed. A thread holds elements (lane / 4, 2 (lane % 4) +
/// {0, 1}) of each; lane l gives the address of row l % 8 of the transpose of matrix l / 8 (l below 16).
__device__ inline void store_transposed(SharedAddress row, std::uint32_t first, std::uint32_t second) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(row), "r"(first),
               "r"(second)
               : "memory");
}

__device__ inline void store_shared(SharedAddress to, std::int32_t word) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(word) : "memory");
}

__device__ inline std::int32_t load_shared(SharedAddress from) {
  std::int32_t word;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(from) : "memory");
  return word;
}

__device__ inline uint4 load_shared_16(SharedAddress from) {
  uint4 values;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(values.x), "=r"(values.y), "=r"(values.z), "=r"(values.w)
               : "r"(from)
               : "memory");
  return values;
}

}  // namespace aurora::cuda
