#include "cuda/device_runner.cuh"
#include "cuda/registry.h"

namespace extrap::cuda {

RuleLaunches device_rule(const char* name, int buffers, const TensorFormats& formats) {
  return visit_pair<RuleLaunches>(formats, [&](auto p, auto g) {
    using P = typename decltype(p)::Type;
    using G = typename decltype(g)::Type;
    return device_rule_of<P, G>(name, buffers, formats);
  });
}

SumLaunches device_sums(DType dtype) { return find_sums<DeviceRunner>(dtype); }

const char* device_problem() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    cudaGetLastError();  // forgets it
    return cudaGetErrorString(status);
  }
  if (count == 0) return "no CUDA device found";
  int driver = 0;
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  // A runtime of CUDA 12.x would make do with it, but the launch table would not fit.
  return driver < 12010 ? "the driver is older than CUDA 12.1" : nullptr;
}

}  // namespace extrap::cuda
