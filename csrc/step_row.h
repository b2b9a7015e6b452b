// The scalars of a launch as Python packs them.
#pragma once

#include <pybind11/pybind11.h>

#include "core/config.h"

namespace extrap {

// Throws std::invalid_argument unless `row` has the size of a StepConfig.
StepConfig read_row(const pybind11::bytes& row);

}  // namespace extrap
