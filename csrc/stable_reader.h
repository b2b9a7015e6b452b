// Reads tensors by torch's stable C interface (torch/csrc/inductor/aoti_torch/c/shim.h), found at run time in what
// torch has loaded: no allocation, no Python object, and a third of the time of DLPack's table of C functions.
#pragma once

#include "tensor_view.h"

namespace extrap {

struct StableReader {
  // Whether this torch has what is needed. To be called while the module is being imported.
  static bool load();
  static bool loaded();

  // `tensor` must be of a type for which is_plain_type() holds.
  static bool read(PyObject* tensor, TensorView& view);
  static void prefetch(PyObject* tensor);
};

}  // namespace extrap
