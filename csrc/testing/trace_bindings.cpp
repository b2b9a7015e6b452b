#include "testing/trace_bindings.h"

#include <pybind11/stl.h>

#include "step_row.h"
#include "testing/trace.h"

namespace py = pybind11;

namespace extrap {
namespace {

// (operations, {output: place}, [(place of a comparison, its outcome)])
py::list as_list(const std::vector<testing::Path>& paths) {
  py::list all;
  for (const testing::Path& path : paths) all.append(py::make_tuple(path.operations, path.outputs, path.decisions));
  return all;
}

}  // namespace

void bind_trace(py::module_& m) {
  m.def(
      "trace_step",
      [](const py::bytes& row, const std::string& rule, int buffers, const std::string& param,
         const std::string& gradient, double step, double norm_x, double norm, double rms, bool has_local,
         bool recovers, double inner_lr) {
        return as_list(testing::traced_step(
            read_row(row), {rule, buffers, param, gradient, step, norm_x, norm, rms, has_local, recovers, inner_lr}));
      },
      py::arg("row"), py::kw_only(), py::arg("rule"), py::arg("buffers"), py::arg("param"), py::arg("gradient"),
      py::arg("step"), py::arg("norm_x"), py::arg("norm"), py::arg("rms"), py::arg("has_local"), py::arg("recovers"),
      py::arg("inner_lr"), "The operations of a step of one element, on each path through its comparisons.");
  m.def(
      "trace_words",
      [](const std::string& what, const py::bytes& row, uint32_t index, double step) {
        return as_list(testing::traced_words(what, read_row(row), index, step));
      },
      py::arg("what"), py::arg("row"), py::arg("index") = 0, py::arg("step") = 0.0,
      "The same of what is made of random words: \"philox\", \"noise\", \"bits\", \"stochastic\", \"rounded\", "
      "\"split\" or \"join\".");
}

}  // namespace extrap
