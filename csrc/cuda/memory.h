// How the kernels touch memory: on the device with cache hints, since all they read and write but y is not needed again
// before the next step; on the host so that tests can record it.
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

enum class Reuse { none, soon };

#if defined(__CUDACC__)
// What the intrinsics take for a T.
template <class T>
using Raw = std::conditional_t<
    sizeof(T) == 16, uint4,
    std::conditional_t<sizeof(T) == 8, uint2, std::conditional_t<sizeof(T) == 4, unsigned, unsigned short>>>;
#endif

template <class T>
EXTRAP_HD T load(const T* from) {
  record(from, false);
  T value;
#if defined(__CUDA_ARCH__)
  const Raw<T> raw = __ldcs(reinterpret_cast<const Raw<T>*>(from));
  memcpy(&value, &raw, sizeof value);
#else
  memcpy(&value, from, sizeof value);
#endif
  return value;
}

template <Reuse kReuse, class T>
EXTRAP_HD void store(T* to, T value) {
  record(to, true);
#if defined(__CUDA_ARCH__)
  __builtin_assume(__isGlobal(to));
  Raw<T> raw;
  memcpy(&raw, &value, sizeof raw);
  if constexpr (kReuse == Reuse::none)
    __stcs(reinterpret_cast<Raw<T>*>(to), raw);
  else
    *reinterpret_cast<Raw<T>*>(to) = raw;
#else
  memcpy(to, &value, sizeof value);
#endif
}

}  // namespace extrap::cuda
