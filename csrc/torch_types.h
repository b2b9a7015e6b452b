// What the readers of tensors know of torch's Python side: found once, when the module is imported.
#pragma once

#include <pybind11/pybind11.h>

namespace extrap {

struct TorchTypes {
  pybind11::object tensor, grad, torch_dispatch, strided;
};

// To be called before any function below, while the module is being imported: the first steps may come from several
// threads.
void load_torch_types();
const TorchTypes& torch_types();

bool is_tensor(PyObject* object);

// Whether a tensor of this type is what its C++ part says: in a subclass with a `grad` or a `__torch_dispatch__` of its
// own, that may be an empty shell.
bool is_plain_subclass(PyTypeObject* type);
// torch.Tensor and the last subclass that passed, held: there is hardly ever more than one, Parameter.
inline PyTypeObject *tensor_type = nullptr, *plain_subclass = nullptr;
inline bool is_plain_type(PyTypeObject* type) {
  return type == tensor_type || type == plain_subclass || is_plain_subclass(type);
}

}  // namespace extrap
