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
}

const TorchTypes& torch_types() { return *loaded; }

bool is_tensor(PyObject* object) {
  return PyObject_TypeCheck(object, reinterpret_cast<PyTypeObject*>(loaded->tensor.ptr())) != 0;
}

bool is_plain_type(PyTypeObject* type) {
  // The last subclass that passed, held: there is hardly ever more than one, Parameter.
  static PyObject* plain_subclass = nullptr;
  PyObject* object = reinterpret_cast<PyObject*>(type);
  if (object == plain_subclass || object == loaded->tensor.ptr()) return true;
  const py::handle handle(object);
  if (!PyType_IsSubtype(type, reinterpret_cast<PyTypeObject*>(loaded->tensor.ptr())) ||
      !py::object(handle.attr("grad")).is(loaded->grad) ||
      !py::object(handle.attr("__torch_dispatch__")).is(loaded->torch_dispatch))
    return false;
  Py_INCREF(object);
  Py_XDECREF(std::exchange(plain_subclass, object));
  return true;
}

}  // namespace extrap
