// How the kernels touch memory: on the device with cache hints, since all they read and write but y is not needed again
// before the next step; on the host so that tests can record it.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/macros.h"
#include "testing/access_log.h"

namespace extrap::cuda {

// What one 128-bit access moves.
struct alignas(16) Vec16 {
  uint32_t word[4];
};

enum class Reuse { none, soon };

template <class T>
EXTRAP_HD T load(const T* from) {
  record(from, false);
#if defined(__CUDA_ARCH__)
  T value;
  if constexpr (sizeof(T) == 16) {
    const uint4 raw = __ldcs(reinterpret_cast<const uint4*>(from));
    memcpy(&value, &raw, sizeof value);
  } else if constexpr (sizeof(T) == 8) {
    const unsigned long long raw = __ldcs(reinterpret_cast<const unsigned long long*>(from));
    memcpy(&value, &raw, sizeof value);
  } else if constexpr (sizeof(T) == 4) {
    const unsigned raw = __ldcs(reinterpret_cast<const unsigned*>(from));
    memcpy(&value, &raw, sizeof value);
  } else {
    const unsigned short raw = __ldcs(reinterpret_cast<const unsigned short*>(from));
    memcpy(&value, &raw, sizeof value);
  }
#else
  T value;
  memcpy(&value, from, sizeof value);
#endif
  return value;
}

template <Reuse kReuse, class T>
EXTRAP_HD void store(T* to, T value) {
  record(to, true);
#if defined(__CUDA_ARCH__)
  __builtin_assume(__isGlobal(to));
  if constexpr (sizeof(T) == 16) {
    uint4 raw;
    memcpy(&raw, &value, sizeof raw);
    if constexpr (kReuse == Reuse::none)
      __stcs(reinterpret_cast<uint4*>(to), raw);
    else
      *reinterpret_cast<uint4*>(to) = raw;
  } else {
    *to = value;
  }
#else
  memcpy(to, &value, sizeof value);
#endif
}

}  // namespace extrap::cuda
