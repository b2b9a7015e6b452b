// The Python module extrap_kernels._C.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "cpu/driver.h"
#include "plan.h"
#include "state_snapshot.h"
#include "tensor_view.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of extrap_kernels.";
  py::class_<extrap::Plan>(m, "Plan", "The tensors of one bucket, validated once and stepped many times.")
      .def(py::init<std::string, py::list, py::list, py::list, py::tuple, const std::vector<uint32_t>&, bool>(),
           py::kw_only(), py::arg("rule"), py::arg("params"), py::arg("targets"), py::arg("states"),
           py::arg("state_names"), py::arg("indices"), py::arg("gradient_like_param"))
      .def("refresh", &extrap::Plan::refresh)
      .def("set_gradient", &extrap::Plan::set_gradient)
      .def("run", &extrap::Plan::run)
      .def("gradient_square_sum", &extrap::Plan::gradient_square_sum);
  py::class_<extrap::StateSnapshot>(m, "StateSnapshot", "The objects that an optimizer's state consists of.")
      .def(py::init<const py::dict&>())
      .def("matches", &extrap::StateSnapshot::matches);
  m.def("instruction_sets", &extrap::cpu::instruction_sets, "Instruction sets that can run here, best first.");
  m.def("instruction_set", &extrap::cpu::selected, "The instruction set in use.");
  m.def("select_instruction_set", &extrap::cpu::select, "Use another of instruction_sets().");
  m.def("exchange_interface", &extrap::exchange_interface, "Whether tensors are read by torch's C exchange interface.");
  m.def("use_exchange_interface", &extrap::use_exchange_interface, "Read tensors by it where it is there, or not.");
}
