// From a param group, a Python dict, to the options of a launch.
#pragma once

#include <pybind11/pybind11.h>

#include "core/config.h"

namespace extrap {

// Options that the group lacks keep their default. Throws std::invalid_argument for a name that no option has. Without
// learning_rates, lr and extrap_lr are left out: read as numbers, tensors on a device would make the host wait for it.
StepConfig read_group_options(const pybind11::dict& group, bool learning_rates = true);

}  // namespace extrap
