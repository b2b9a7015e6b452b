// `param.grad`, asked of every parameter in every step.
#pragma once

#include <pybind11/pybind11.h>

namespace extrap {

pybind11::object gradient_of(PyObject* param);

}  // namespace extrap
