// How the kernels touch memory. On the device with cache hints: all they read and write but y is not needed again
// before the next step. On the host, where tests run them, every access can be recorded.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "core/macros.h"

namespace extrap::cuda {

// What one 128-bit access moves.
struct alignas(16) Packet {
  uint32_t word[4];
};

struct Access {
  uint64_t address;
  uint32_t bytes;
  bool is_store;
};

// Null where nobody records.
extern std::vector<Access>* access_log;

template <class T>
EXTRAP_HD void record(const T* address, bool is_store) {
#if !defined(__CUDA_ARCH__)
  if (access_log) access_log->push_back({reinterpret_cast<uint64_t>(address), sizeof(T), is_store});
#endif
}

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
