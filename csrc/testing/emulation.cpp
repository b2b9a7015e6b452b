#include "testing/emulation.h"

#include "testing/emulated_runner.h"

namespace extrap::cuda {

const bool emulation_built = true;
std::vector<Access>* access_log = nullptr;
uint64_t access_thread = 0;
int emulated_tail = 0;
int emulated_launches = 0;

RuleLaunches emulated_rule(const char* name, int buffers, const TensorFormats& formats) {
  return visit_pair<RuleLaunches>(formats, [&](auto p, auto g) {
    using P = typename decltype(p)::Type;
    using G = typename decltype(g)::Type;
    return emulated_rule_of<P, G>(name, buffers, formats);
  });
}

SumLaunches emulated_sums(DType dtype) { return find_sums<EmulatedRunner>(dtype); }

}  // namespace extrap::cuda
