// Reads tensors by DLPack's table of C functions (torch.Tensor.__dlpack_c_exchange_api__): a view of a tensor costs no
// allocation and no Python object.
#pragma once

#include "tensor_view.h"

namespace extrap {

struct DlpackReader {
  // Whether this torch has the table. To be called while the module is being imported.
  static bool load();
  static bool loaded();

  // `tensor` must be of a type for which is_plain_type() holds.
  static bool read(PyObject* tensor, TensorView& view);
};

}  // namespace extrap
