// The Python module extrap_kernels._C.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cpu/driver.h"
#include "device_plan.h"
#include "plan.h"
#include "state_snapshot.h"
#include "tensor_view.h"
#include "testing/access_log.h"
#include "testing/emulation.h"
#include "version_counters.h"

namespace py = pybind11;

namespace {

#if defined(EXTRAP_HAVE_CUDA)
constexpr bool kCudaBuilt = true;
const char* cuda_problem() { return extrap::cuda::device_problem(); }
#else
constexpr bool kCudaBuilt = false;
const char* cuda_problem() { return "this build has no CUDA kernels"; }
#endif

// What `action` does to memory in emulated kernels: (address, bytes, whether it is a store) of each access.
std::vector<std::tuple<uint64_t, uint32_t, bool>> recorded_accesses(const py::function& action) {
  std::vector<extrap::cuda::Access> log;
  extrap::cuda::access_log = &log;
  try {
    action();
  } catch (...) {
    extrap::cuda::access_log = nullptr;
    throw;
  }
  extrap::cuda::access_log = nullptr;
  std::vector<std::tuple<uint64_t, uint32_t, bool>> accesses;
  accesses.reserve(log.size());
  for (const auto& access : log) accesses.emplace_back(access.address, access.bytes, access.is_store);
  return accesses;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of extrap_kernels.";
  py::class_<extrap::Shard>(m, "Shard", "Where a part of a tensor lies in the whole.")
      .def(py::init([](int64_t offset, int64_t run, int64_t pitch, int64_t numel, int64_t rows) {
             return extrap::Shard{offset, run, pitch, numel, rows};
           }),
           py::kw_only(), py::arg("offset"), py::arg("run"), py::arg("pitch"), py::arg("numel"), py::arg("rows"));
  py::class_<extrap::Plan>(m, "Plan", "The tensors of one bucket, validated once and stepped many times.")
      .def(py::init<std::string, py::list, py::list, py::list, py::tuple, const std::vector<uint32_t>&, bool,
                    const std::vector<extrap::Shard>&>(),
           py::kw_only(), py::arg("rule"), py::arg("params"), py::arg("targets"), py::arg("states"),
           py::arg("state_names"), py::arg("indices"), py::arg("gradient_like_param"), py::arg("shards"))
      .def("refresh", &extrap::Plan::refresh)
      .def("set_gradient", &extrap::Plan::set_gradient)
      .def("run", &extrap::Plan::run)
      .def("square_sums", &extrap::Plan::square_sums)
      .def("gradient_square_sum", &extrap::Plan::gradient_square_sum);
  py::class_<extrap::DevicePlan>(m, "DevicePlan", "A plan whose steps run on a CUDA device, or emulated on the host.")
      .def(py::init<std::string, py::list, py::list, py::list, py::tuple, const std::vector<uint32_t>&, bool,
                    const std::vector<extrap::Shard>&, bool>(),
           py::kw_only(), py::arg("rule"), py::arg("params"), py::arg("targets"), py::arg("states"),
           py::arg("state_names"), py::arg("indices"), py::arg("gradient_like_param"), py::arg("shards"),
           py::arg("emulated"))
      .def("refresh", &extrap::DevicePlan::refresh)
      .def("set_gradient", &extrap::DevicePlan::set_gradient)
      .def("scratch_sizes", &extrap::DevicePlan::scratch_sizes)
      .def("use_scratch", &extrap::DevicePlan::use_scratch)
      .def("norm_sums", &extrap::DevicePlan::norm_sums)
      .def("row_sums", &extrap::DevicePlan::row_sums)
      .def("row_numels", &extrap::DevicePlan::row_numels)
      .def("measure", &extrap::DevicePlan::measure)
      .def("step", &extrap::DevicePlan::step)
      .def("add_gradient_square_sum", &extrap::DevicePlan::add_gradient_square_sum);
  py::class_<extrap::StateSnapshot>(m, "StateSnapshot", "The objects that an optimizer consists of.")
      .def(py::init<const py::dict&, const py::list&>())
      .def("matches", &extrap::StateSnapshot::matches);
  m.attr("cuda_built") = kCudaBuilt;
  m.def("cuda_problem", &cuda_problem, "Why no CUDA device can be used, or None.");
  m.def("cuda_launches", &extrap::cuda_launches, "Launches of a step without noise on tensors of these sizes.");
  m.def(
      "emulated_launches", [] { return std::exchange(extrap::cuda::emulated_launches, 0); },
      "Emulated launches since the last call.");
  m.def("recorded_accesses", &recorded_accesses, "The memory accesses of emulated kernels that an action runs.");
  m.def(
      "emulate_tail", [](int units) { extrap::cuda::emulated_tail = units; },
      "Emulate only so many chunks, the last ones of each launch; 0: all.");
  py::class_<extrap::VersionCounters>(m, "VersionCounters", "autograd's version counters of some tensors.")
      .def(py::init<const py::list&>())
      .def("increment", &extrap::VersionCounters::increment);
  m.def("instruction_sets", &extrap::cpu::instruction_sets, "Instruction sets that can run here, best first.");
  m.def("instruction_set", &extrap::cpu::selected, "The instruction set in use.");
  m.def("select_instruction_set", &extrap::cpu::select, "Use another of instruction_sets().");
  m.def("uses_stable_interface", &extrap::uses_stable_interface,
        "Whether tensors are read by torch's stable C interface.");
  m.def("use_stable_interface", &extrap::use_stable_interface, "Read tensors by it where it is there, or not.");
}
