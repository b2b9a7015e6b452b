// The kernels for parameters and gradients of one storage each, which EXTRAP_PARAM and EXTRAP_GRADIENT name: compiled
// once for each combination, side by side.
#include "cuda/combinations.h"
#include "cuda/device_runner.cuh"

namespace extrap::cuda {

template <>
RuleLaunches device_rule_of<EXTRAP_PARAM, EXTRAP_GRADIENT>(const char* name, int buffers) {
  return find_rule<DeviceRunner, EXTRAP_PARAM, EXTRAP_GRADIENT>(name, buffers);
}

}  // namespace extrap::cuda
