// The Python module extrap_kernels._C.
#include "testing/bindings.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "address_plan.h"
#include "bucket.h"
#include "cpu/driver.h"
#include "cpu/plan.h"
#include "cuda/plan.h"
#include "cuda/registry.h"
#include "facts.h"
#include "state_reader.h"
#include "tensor_view.h"

namespace py = pybind11;

namespace {

#if defined(EXTRAP_HAVE_CUDA)
constexpr bool kCudaBuilt = true;
const std::vector<int> kCudaArchs{EXTRAP_CUDA_ARCHS};
constexpr const char* kCudaVersion = EXTRAP_CUDA_VERSION;
const char* cuda_problem() { return extrap::cuda::device_problem(); }
#else
constexpr bool kCudaBuilt = false;
const std::vector<int> kCudaArchs;
constexpr const char* kCudaVersion = nullptr;
const char* cuda_problem() { return "this build has no CUDA kernels"; }
#endif

py::dict choices() {
  py::dict names_of;
  for (const auto& [option, names] : extrap::choice_facts()) names_of[py::str(option)] = names;
  return names_of;
}

py::list rules() {
  py::list list;
  for (const extrap::RuleFacts& rule : extrap::rule_facts()) {
    const py::object norm = rule.norm == "none" ? py::object(py::none()) : py::str(rule.norm);
    list.append(py::make_tuple(rule.name, rule.is_signed, norm, rule.own_decay));
  }
  return list;
}

// What all plans have in common. Extra: arguments of the constructor besides the tensors.
template <class Plan, class... Extra, class... Names>
py::class_<Plan> plan_class(py::module_& m, const char* name, const char* doc, const Names&... extra_names) {
  return py::class_<Plan>(m, name, doc)
      .def(py::init([](py::list params, py::list dense_params, bool has_base, bool recovers_base,
                       std::string base_dtype, py::tuple buffers, std::vector<std::string> buffer_formats,
                       std::string grad_dtype, std::vector<uint32_t> indices, std::vector<std::string> param_names,
                       std::vector<extrap::Shard> shards, Extra... extra) {
             return std::make_unique<Plan>(
                 extrap::BucketContents{std::move(params), std::move(dense_params), has_base, std::move(base_dtype),
                                        recovers_base, std::move(buffers), std::move(buffer_formats),
                                        std::move(grad_dtype), std::move(indices), std::move(param_names),
                                        std::move(shards)},
                 extra...);
           }),
           py::kw_only(), py::arg("params"), py::arg("dense_params"), py::arg("has_base"), py::arg("recovers_base"),
           py::arg("base_dtype"), py::arg("buffers"), py::arg("buffer_formats"), py::arg("grad_dtype"),
           py::arg("indices"), py::arg("names"), py::arg("shards"), extra_names...)
      .def("bind",
           [](Plan& plan, const py::list& states, const py::dict& local) { return plan.bucket().bind(states, local); })
      .def("gradient", [](Plan& plan, size_t i, bool is_local) { return plan.bucket().gradient(i, is_local); })
      .def("set_gradient", [](Plan& plan, size_t i, bool is_local,
                              const py::object& gradient) { plan.bucket().set_gradient(i, is_local, gradient); })
      .def("active", [](Plan& plan) { return plan.bucket().active(); })
      .def("skips", [](Plan& plan) { return plan.bucket().active().size() < plan.bucket().size(); })
      .def("release", [](Plan& plan) { plan.bucket().release(); });
}

void bind_plans(py::module_& m) {
  using extrap::AddressPlan, extrap::CpuPlan, extrap::CudaPlan, extrap::Shard;
  py::class_<Shard>(m, "Shard", "Where a part of a tensor lies in the whole.")
      .def(py::init([](int64_t offset, int64_t extent, int64_t stride, int64_t numel, int64_t rows) {
             return Shard{offset, extent, stride, numel, rows};
           }),
           py::kw_only(), py::arg("offset"), py::arg("extent"), py::arg("stride"), py::arg("numel"), py::arg("rows"));
  py::class_<extrap::Sums, std::shared_ptr<extrap::Sums>>(m, "Sums", py::buffer_protocol())
      .def_buffer([](extrap::Sums& sums) {
        return py::buffer_info(sums.values.data(), static_cast<py::ssize_t>(sums.values.size()));
      });
  plan_class<CpuPlan, std::string>(m, "CpuPlan", "The tensors of one bucket, stepped on the CPU.", py::arg("rule"))
      .def("run", &CpuPlan::run)
      .def("square_sums", &CpuPlan::square_sums)
      .def("direction_square_sum", &CpuPlan::direction_square_sum)
      .def("gradient_square_sum", &CpuPlan::gradient_square_sum);
  plan_class<AddressPlan>(m, "AddressPlan", "The tensors of one bucket, stepped by kernels that Python launches.")
      .def("write_rows", &AddressPlan::write_rows);
  plan_class<CudaPlan, std::string, bool>(m, "CudaPlan",
                                          "The tensors of one bucket, stepped on a CUDA device, or emulated.",
                                          py::arg("rule"), py::arg("emulated"))
      .def("scratch_sizes", &CudaPlan::scratch_sizes)
      .def("use_scratch", &CudaPlan::use_scratch)
      .def("norm_sums", &CudaPlan::norm_sums)
      .def("row_sums", &CudaPlan::row_sums)
      .def("row_numels", &CudaPlan::row_numels)
      .def("measure", &CudaPlan::measure)
      .def("step", &CudaPlan::step)
      .def("add_direction_square_sum", &CudaPlan::add_direction_square_sum)
      .def("add_gradient_square_sum", &CudaPlan::add_gradient_square_sum);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of extrap_kernels.";
  extrap::load_tensor_readers();
  bind_plans(m);
  py::class_<extrap::StateReader>(m, "StateReader", "Reads the state of every parameter of an optimizer.")
      .def(py::init<const py::dict&, const py::list&>())
      .def("read", &extrap::StateReader::read);
  m.def("scalars", &extrap::scalar_facts, "Name and type of each scalar of a launch, in the order of a row.");
  m.def("choices", &choices, "The names of each scalar that is one of several, in the order of their codes.");
  m.def("rules", &rules, "Name, signs of the buffers, norm, and whether it decays weights itself, of each rule.");
  m.attr("cuda_built") = kCudaBuilt;
  m.attr("cuda_archs") = kCudaArchs;
  m.attr("cuda_version") = kCudaVersion;
  m.def("cuda_problem", &cuda_problem, "Why no CUDA device can be used, or None.");
  m.def("cuda_launches", &extrap::cuda_launches, "Launches of a step without noise on tensors of these sizes.");
  m.def("instruction_sets", &extrap::cpu::instruction_sets, "Instruction sets that can run here, best first.");
  m.def("instruction_set", &extrap::cpu::selected, "The instruction set in use.");
  m.def("select_instruction_set", &extrap::cpu::select, "Use another of instruction_sets().");
  m.def("reads_by_stable_interface", &extrap::reads_by_stable_interface,
        "Whether tensors are read by torch's stable C interface.");
  py::module_ testing = m.def_submodule("testing", "Instruments of the tests.");
  extrap::bind_testing(testing);
}
