#include "torch_types.h"

#include <utility>

namespace py = pybind11;

namespace extrap {
namespace {

// Never destroyed: the interpreter may be gone by then.
TorchTypes* loaded = nullptr;

}  // namespace

void load_torch_types() {
  const py::module_ torch = py::module_::import("torch");
  const py::object tensor = torch.attr("Tensor");
  loaded = new TorchTypes{tensor, tensor.attr("grad"), tensor.attr("__torch_dispatch__"), torch.attr("strided")};
  tensor_type = reinterpret_cast<PyTypeObject*>(loaded->tensor.ptr());
}

const TorchTypes& torch_types() { return *loaded; }

bool is_tensor(PyObject* object) { return PyObject_TypeCheck(object, tensor_type) != 0; }

bool is_plain_subclass(PyTypeObject* type) {
  const py::handle handle(reinterpret_cast<PyObject*>(type));
  if (!PyType_IsSubtype(type, tensor_type) || !py::object(handle.attr("grad")).is(loaded->grad) ||
      !py::object(handle.attr("__torch_dispatch__")).is(loaded->torch_dispatch))
    return false;
  Py_INCREF(type);
  Py_XDECREF(std::exchange(plain_subclass, type));
  return true;
}

}  // namespace extrap
