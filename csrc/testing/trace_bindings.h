// Binds the traces of the arithmetic.
#pragma once

#include <pybind11/pybind11.h>

namespace extrap {

void bind_trace(pybind11::module_& m);

}  // namespace extrap
