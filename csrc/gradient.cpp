#include "gradient.h"

#include "torch_types.h"

namespace py = pybind11;

namespace extrap {
namespace {

// What the look-up of the attribute calls in the end, unless a subclass has a `grad` of its own. Null where torch does
// not implement it as a getter in C.
const PyGetSetDef* direct_getter() {
  PyObject* descriptor = torch_types().grad.ptr();
  if (!Py_IS_TYPE(descriptor, &PyGetSetDescr_Type)) return nullptr;
  return reinterpret_cast<PyGetSetDescrObject*>(descriptor)->d_getset;
}

}  // namespace

py::object gradient_of(PyObject* param) {
  const PyGetSetDef* getter = is_plain_type(Py_TYPE(param)) ? direct_getter() : nullptr;
  auto gradient = py::reinterpret_steal<py::object>(getter ? getter->get(param, getter->closure)
                                                           : PyObject_GetAttrString(param, "grad"));
  if (!gradient) throw py::error_already_set();
  return gradient;
}

}  // namespace extrap
