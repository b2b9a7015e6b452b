#include "testing/bindings.h"

#include <pybind11/stl.h>

#include <tuple>
#include <utility>
#include <vector>

#include "tensor_view.h"
#include "testing/access_log.h"
#include "testing/emulation.h"
#include "testing/trace_bindings.h"

namespace py = pybind11;

namespace extrap {
namespace {

// What `action` does to memory in emulated kernels: (address, bytes, whether it is a store, thread) of each access.
std::vector<std::tuple<uint64_t, uint32_t, bool, uint64_t>> recorded_accesses(const py::function& action) {
  std::vector<cuda::Access> log;
  struct Recording {
    explicit Recording(std::vector<cuda::Access>& to) { cuda::access_log = &to; }
    ~Recording() { cuda::access_log = nullptr; }
  };
  {
    const Recording recording(log);
    action();
  }
  std::vector<std::tuple<uint64_t, uint32_t, bool, uint64_t>> accesses;
  accesses.reserve(log.size());
  for (const cuda::Access& access : log)
    accesses.emplace_back(access.address, access.bytes, access.is_store, access.thread);
  return accesses;
}

}  // namespace

void bind_testing(py::module_& m) {
  m.attr("emulation_built") = cuda::emulation_built;
  m.attr("chunk") = cuda::kChunk;  // elements of a unit of a step
  m.def("recorded_accesses", &recorded_accesses, "The memory accesses of emulated kernels that an action runs.");
  m.def(
      "emulated_launches", [] { return std::exchange(cuda::emulated_launches, 0); },
      "Emulated launches since the last call.");
  m.def(
      "emulate_tail", [](int units) { cuda::emulated_tail = units; },
      "Emulate only so many chunks, the last ones of each launch; 0: all.");
  m.def("read_by_stable_interface", &read_by_stable_interface,
        "Read tensors by torch's stable C interface where it can be used, or not.");
#if defined(EXTRAP_TESTING)
  bind_trace(m);
#endif
}

}  // namespace extrap
