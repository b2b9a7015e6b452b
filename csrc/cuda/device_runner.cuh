// Launches kernels on the device.
#pragma once

#include <cuda_runtime.h>

#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/kernels.h"

namespace extrap::cuda {

// The warp of a thread.
class DeviceWarp {
 public:
  template <class Phase>
  __device__ __forceinline__ void each(const Phase& phase) const {
    phase(static_cast<int>(threadIdx.x));
  }

  // load(thread, i, registers) for each of `count` parts on each lane, so that all are on their way. Then, for one part
  // after the other, before(thread, i, registers) on each lane, and after(thread, i, registers) when all lanes have
  // done so. In between, the numbers that exchanged(registers, visit) visits become the largest among `lanes`
  // neighbours, a power of two.
  template <class Registers, class Load, class Before, class Exchanged, class After>
  __device__ __forceinline__ void in_steps(int count, int lanes, const Load& load, const Before& before,
                                           const Exchanged& exchanged, const After& after) const {
    const int thread = static_cast<int>(threadIdx.x);
    Registers registers;
    EXTRAP_UNROLL
    for (int i = 0; i < count; ++i) load(thread, i, registers);
    EXTRAP_UNROLL
    for (int i = 0; i < count; ++i) {
      before(thread, i, registers);
      EXTRAP_UNROLL
      for (int distance = 1; distance < kWarp; distance *= 2)
        if (distance < lanes)
          exchanged(registers, [&](uint32_t& value) {
            const uint32_t other = __shfl_xor_sync(0xffffffffu, value, distance);
            value = other > value ? other : value;
          });
      after(thread, i, registers);
      EXTRAP_REREAD_MEMORY();
    }
  }
};

class DeviceBlock {
 public:
  __device__ __forceinline__ int index() const { return static_cast<int>(blockIdx.x); }
  __device__ __forceinline__ int count() const { return static_cast<int>(gridDim.x); }
  __device__ __forceinline__ void sync() const { __syncthreads(); }

  template <class Phase>
  __device__ __forceinline__ void on_first_thread(const Phase& phase) const {
    if (threadIdx.x == 0) phase();
    __syncthreads();
  }

  template <class Phase>
  __device__ __forceinline__ void on_each_thread(const Phase& phase) const {
    phase(static_cast<int>(threadIdx.x));
    __syncthreads();
  }

  template <class Phase>
  __device__ __forceinline__ void on_each_warp(const Phase& phase) const {
    phase(DeviceWarp());
    __syncthreads();
  }

  // What this block wrote before is seen by those that arrive after it. Returns how many were there before.
  __device__ __forceinline__ int arrive(int32_t* counter) const {
    __threadfence();
    const int before = atomicAdd(counter, 1);
    __threadfence();
    return before;
  }

  // What another block wrote before it arrived.
  __device__ __forceinline__ double read(const double* from) const { return __ldcg(from); }
};

template <class Kernel>
__global__ void __launch_bounds__(kThreads, Kernel::kResidentBlocks)
    run_kernel(const __grid_constant__ LaunchTable table) {
  __shared__ typename Kernel::Shared shared;
  run_block<Kernel>(table, shared, DeviceBlock());
}

inline void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(call) + " failed: " + cudaGetErrorString(status));
}

// Makes a device the current one, and the one before it again in the end.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ != device) check(cudaSetDevice(device), "cudaSetDevice");
    changed_ = before_ != device;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

template <class Kernel>
struct DeviceRunner {
  // The kernels are persistent: as many blocks as the device holds at once, each of which prepares its constants once
  // and walks over many chunks.
  static int resident_blocks(int device) {
    static std::mutex mutex;
    static std::vector<int> known;
    const std::lock_guard<std::mutex> lock(mutex);
    if (known.size() <= static_cast<size_t>(device)) known.resize(static_cast<size_t>(device) + 1);
    int& blocks = known[static_cast<size_t>(device)];
    if (blocks == 0) {
      int multiprocessors = 0, on_each = 0;
      check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
      check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&on_each, run_kernel<Kernel>, kThreads, 0),
            "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
      blocks = multiprocessors * on_each;
    }
    return blocks;
  }

  static void launch(const LaunchTable& table, const Target& target) {
    const DeviceGuard guard(target.device);
    const int resident = resident_blocks(target.device);
    const int blocks = table.units < 1 ? 1 : table.units < resident ? table.units : resident;
    run_kernel<Kernel><<<static_cast<unsigned>(blocks), kThreads, 0, static_cast<cudaStream_t>(target.stream)>>>(table);
    check(cudaGetLastError(), "kernel launch");
  }
};

}  // namespace extrap::cuda
