// Binds the test instruments as extrap_kernels._C.testing.
#pragma once

#include <pybind11/pybind11.h>

namespace extrap {

void bind_testing(pybind11::module_& m);

}  // namespace extrap
