// In place of emulation.cpp where EXTRAP_TESTING is OFF: it takes longer to compile than all kernels of one
// instruction set, and only tests use it.
#include <stdexcept>

#include "testing/emulation.h"

namespace extrap::cuda {

const bool emulation_built = false;
std::vector<Access>* access_log = nullptr;
uint64_t access_thread = 0;
int emulated_tail = 0;
int emulated_launches = 0;

RuleLaunches emulated_rule(const char*, int, const TensorFormats&) {
  throw std::runtime_error("this build has no emulated CUDA kernels; build it with EXTRAP_TESTING=ON");
}

SumLaunches emulated_sums(DType) { return {}; }

}  // namespace extrap::cuda
