// The kernels for parameters and gradients of one format each, which EXTRAP_PARAM and EXTRAP_GRADIENT name: compiled
// once for each pair, side by side.
#include "cuda/device_runner.cuh"
#include "cuda/registry.h"

namespace extrap::cuda {

template <>
RuleLaunches device_rule_of<EXTRAP_PARAM, EXTRAP_GRADIENT>(const char* name, int buffers,
                                                           const TensorFormats& formats) {
  return find_rule<DeviceRunner, EXTRAP_PARAM, EXTRAP_GRADIENT>(name, buffers, formats);
}

}  // namespace extrap::cuda
