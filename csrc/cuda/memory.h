// How the kernels touch memory: on the device by whole cache lines, on the host so that tests can record it.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/macros.h"
#include "testing/access_log.h"

namespace extrap::cuda {

constexpr int kWidestAccess = 16;  // bytes

// Several numbers, which one access moves.
template <int kBytes>
struct alignas(kBytes) Packet {
  static_assert(kBytes <= kWidestAccess);
  uint32_t word[kBytes / 4];
};

#if defined(__CUDACC__)
// What the intrinsics take for a T.
template <class T>
using Raw = std::conditional_t<
    sizeof(T) == 16, uint4,
    std::conditional_t<sizeof(T) == 8, uint2,
                       std::conditional_t<sizeof(T) == 4, unsigned,
                                          std::conditional_t<sizeof(T) == 2, unsigned short, unsigned char>>>>;
#endif

#if defined(__CUDA_ARCH__)
// Brings whole cache lines into L2. Without it, tensors that do not begin at one, as the views of a flat buffer, took
// 9% more time on an H200. (Hints that nothing is used again, ld.cs and st.cs, took 5% more for all tensors.)
__device__ __forceinline__ void load_line(const uint4* from, uint4& v) {
  asm volatile("ld.global.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
}
__device__ __forceinline__ void load_line(const uint2* from, uint2& v) {
  asm volatile("ld.global.L2::128B.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from));
}
__device__ __forceinline__ void load_line(const unsigned* from, unsigned& v) {
  asm volatile("ld.global.L2::128B.u32 %0, [%1];" : "=r"(v) : "l"(from));
}
__device__ __forceinline__ void load_line(const unsigned short* from, unsigned short& v) {
  asm volatile("ld.global.L2::128B.u16 %0, [%1];" : "=h"(v) : "l"(from));
}
__device__ __forceinline__ void load_line(const unsigned char* from, unsigned char& v) {
  unsigned wide;
  asm volatile("ld.global.L2::128B.u8 %0, [%1];" : "=r"(wide) : "l"(from));
  v = static_cast<unsigned char>(wide);
}

// For codes and single numbers: nvcc 13.0 fails ("Broken function found") where it is told of these that they lie in
// global memory, as the others are.
__device__ __forceinline__ void store_global(unsigned* to, unsigned v) {
  asm volatile("st.global.u32 [%0], %1;" ::"l"(to), "r"(v));
}
__device__ __forceinline__ void store_global(unsigned char* to, unsigned char v) {
  asm volatile("st.global.u8 [%0], %1;" ::"l"(to), "r"(static_cast<unsigned>(v)));
}
#endif

template <class T>
EXTRAP_HD T load(const T* from) {
  record(from, false);
  T value;
#if defined(__CUDA_ARCH__)
  Raw<T> raw;
  load_line(reinterpret_cast<const Raw<T>*>(from), raw);
  memcpy(&value, &raw, sizeof value);
#else
  memcpy(&value, from, sizeof value);
#endif
  return value;
}

template <class T>
EXTRAP_HD void store(T* to, T value) {
  record(to, true);
#if defined(__CUDA_ARCH__)
  Raw<T> raw;
  memcpy(&raw, &value, sizeof raw);
  if constexpr (sizeof(T) == 4 || sizeof(T) == 1) {
    store_global(reinterpret_cast<Raw<T>*>(to), raw);
  } else {
    __builtin_assume(__isGlobal(to));
    *reinterpret_cast<Raw<T>*>(to) = raw;
  }
#else
  memcpy(to, &value, sizeof value);
#endif
}

}  // namespace extrap::cuda
