// Reads tensors by their Python attributes: those of subclasses that override something, and all of a torch without
// torch's stable C interface.
#pragma once

#include "tensor_view.h"

namespace extrap {

// See read_memory().
bool read_by_attributes(PyObject* tensor, TensorView& view);

}  // namespace extrap
