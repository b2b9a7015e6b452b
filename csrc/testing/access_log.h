// A record of what the CUDA kernels do to memory where they run on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "core/macros.h"

namespace extrap::cuda {

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

}  // namespace extrap::cuda
