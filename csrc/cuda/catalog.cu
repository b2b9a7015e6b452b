#include "cuda/catalog.h"
#include "cuda/combinations.h"
#include "cuda/device_runner.cuh"

namespace extrap::cuda {

RuleLaunches device_rule(const char* name, int buffers, DType param, bool gradient_like_param) {
  switch (param) {
    case DType::float32:
      return device_rule_of<float, float>(name, buffers);
    case DType::float64:
      return device_rule_of<double, double>(name, buffers);
    case DType::bfloat16:
      return gradient_like_param ? device_rule_of<BFloat16, BFloat16>(name, buffers)
                                 : device_rule_of<BFloat16, float>(name, buffers);
    case DType::float16:
      return gradient_like_param ? device_rule_of<Float16, Float16>(name, buffers)
                                 : device_rule_of<Float16, float>(name, buffers);
  }
  return {};
}

SumLaunches device_sums(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return find_sums<DeviceRunner, float>();
    case DType::float64:
      return find_sums<DeviceRunner, double>();
    case DType::bfloat16:
      return find_sums<DeviceRunner, BFloat16>();
    case DType::float16:
      return find_sums<DeviceRunner, Float16>();
  }
  return {};
}

const char* device_problem() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess) return count > 0 ? nullptr : "no CUDA device found";
  cudaGetLastError();  // forgets it
  return cudaGetErrorString(status);
}

}  // namespace extrap::cuda
