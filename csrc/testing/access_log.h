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
  uint64_t thread;
};

// Null where nobody records.
extern std::vector<Access>* access_log;
// Who runs. Each phase of each block has kThreads numbers of its own, so that 32 consecutive ones are a warp.
extern uint64_t access_thread;

template <class T>
EXTRAP_HD void record(const T* address, bool is_store) {
#if !defined(__CUDA_ARCH__)
  if (access_log) access_log->push_back({reinterpret_cast<uint64_t>(address), sizeof(T), is_store, access_thread});
#endif
}

}  // namespace extrap::cuda
