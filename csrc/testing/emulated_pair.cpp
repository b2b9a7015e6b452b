// The emulated kernels for parameters and gradients of one format each, as cuda/instantiate.cu has them for the device:
// in one object, one processor would compile them all.
#include "testing/emulated_runner.h"

namespace extrap::cuda {

template <>
RuleLaunches emulated_rule_of<EXTRAP_PARAM, EXTRAP_GRADIENT>(const char* name, int buffers,
                                                             const TensorFormats& formats) {
  return find_rule<EmulatedRunner, EXTRAP_PARAM, EXTRAP_GRADIENT>(name, buffers, formats);
}

}  // namespace extrap::cuda
