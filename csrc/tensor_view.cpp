#include "tensor_view.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <iterator>
#include <string>

namespace py = pybind11;

namespace extrap {
namespace {

struct KnownDType {
  const char* name;
  DType dtype;
  bool complex;
};
constexpr KnownDType kDTypes[] = {{"float32", DType::float32, false},   {"float64", DType::float64, false},
                                  {"bfloat16", DType::bfloat16, false}, {"float16", DType::float16, false},
                                  {"complex32", DType::float16, true},  {"complex64", DType::float32, true},
                                  {"complex128", DType::float64, true}};
constexpr size_t kDTypeCount = std::size(kDTypes);

struct Torch {
  std::optional<StableInterface> interface;
  bool use_interface;
  int32_t dtype_codes[kDTypeCount];  // in the interface
  py::object dtypes[kDTypeCount];    // in Python
  py::object tensor_type, strided, data_ptr, grad, dispatch;

  Torch() {
    const py::module_ torch = py::module_::import("torch");
    tensor_type = torch.attr("Tensor");
    strided = torch.attr("strided");
    data_ptr = tensor_type.attr("data_ptr");
    grad = tensor_type.attr("grad");
    dispatch = tensor_type.attr("__torch_dispatch__");
    interface = StableInterface::find(torch);
    for (size_t i = 0; i < kDTypeCount; ++i) {
      dtypes[i] = torch.attr(kDTypes[i].name);
      if (!interface) continue;
      const auto code = interface->constant(std::string("dtype_") + kDTypes[i].name);
      if (code)
        dtype_codes[i] = *code;
      else
        interface.reset();
    }
    use_interface = interface.has_value();
  }
};

Torch& torch() {
  // Never destroyed: the interpreter may be gone by then.
  static Torch* instance = new Torch();
  return *instance;
}

// Whether a tensor of this type is what its C++ part says: in a subclass with a `grad` or a `__torch_dispatch__` of its
// own, that may be an empty shell.
bool is_plain_type(PyTypeObject* type) {
  static PyObject* plain_subclass = nullptr;  // the last one seen, held: there is hardly ever more than one
  PyObject* object = reinterpret_cast<PyObject*>(type);
  if (object == plain_subclass || object == torch().tensor_type.ptr()) return true;
  const py::handle handle(object);
  if (!PyType_IsSubtype(type, reinterpret_cast<PyTypeObject*>(torch().tensor_type.ptr())) ||
      !py::object(handle.attr("grad")).is(torch().grad) ||
      !py::object(handle.attr("__torch_dispatch__")).is(torch().dispatch))
    return false;
  Py_XDECREF(plain_subclass);
  plain_subclass = py::reinterpret_borrow<py::object>(object).release().ptr();
  return true;
}

bool set_dtype(size_t i, TensorView& view) {
  if (i == kDTypeCount) return false;
  view.dtype = kDTypes[i].dtype;
  view.complex = kDTypes[i].complex;
  return true;
}

// Lazy conjugation and negation do not show in the memory. A negated view of more than one element is the imaginary
// part of a conjugated tensor, which has gaps and never fits a layout as it is; so only single elements are asked.
bool is_lazy(py::handle tensor, bool complex, int64_t numel) {
  if (complex) return tensor.attr("is_conj")().cast<bool>();
  return numel == 1 && tensor.attr("is_neg")().cast<bool>();
}

bool read_by_interface(const StableInterface& f, StableInterface::Handle handle, TensorView& view) {
  int32_t layout, dtype, device;
  if (f.layout(handle, &layout) || f.device_type(handle, &device) || f.dtype(handle, &dtype)) return false;
  // Asked before what would fail for other tensors.
  if (layout != f.strided || (device != f.cpu && device != f.cuda)) return false;
  view.device_type = device == f.cpu ? 1 : 2;
  view.device_index = 0;
  int64_t ndim, *shape, *strides;
  if ((device != f.cpu && f.device_index(handle, &view.device_index)) || f.dim(handle, &ndim) ||
      f.sizes(handle, &shape) || f.strides(handle, &strides) || f.data_ptr(handle, &view.data) || ndim > kMaxDims)
    return false;
  view.ndim = static_cast<int32_t>(ndim);
  for (int i = 0; i < view.ndim; ++i) {
    view.shape[i] = shape[i];
    view.strides[i] = strides[i];
  }
  const auto* codes = torch().dtype_codes;
  return set_dtype(static_cast<size_t>(std::find(codes, codes + kDTypeCount, dtype) - codes), view);
}

bool read_by_attributes(py::handle tensor, TensorView& view) {
  if (!py::object(tensor.attr("layout")).is(torch().strided)) return false;
  const py::object dtype = tensor.attr("dtype"), device = tensor.attr("device");
  const std::string kind = py::str(device.attr("type"));
  if (kind != "cpu" && kind != "cuda") return false;
  view.data = reinterpret_cast<void*>(tensor.attr("data_ptr")().cast<uintptr_t>());
  view.device_type = kind == "cpu" ? 1 : 2;
  view.device_index = device.attr("index").is_none() ? 0 : device.attr("index").cast<int32_t>();
  const py::tuple shape = tensor.attr("shape"), strides = tensor.attr("stride")();
  if (shape.size() > kMaxDims) return false;
  view.ndim = static_cast<int32_t>(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) {
    view.shape[i] = shape[i].cast<int64_t>();
    view.strides[i] = strides[i].cast<int64_t>();
  }
  size_t i = 0;
  while (i < kDTypeCount && !torch().dtypes[i].is(dtype)) ++i;
  return set_dtype(i, view);
}

}  // namespace

bool has_layout(const TensorView& view, int ndim, const int64_t* shape, const int64_t* strides) {
  if (view.ndim != ndim) return false;
  bool same_strides = true, empty = false;
  for (int i = 0; i < ndim; ++i) {
    if (view.shape[i] != shape[i]) return false;
    empty |= shape[i] == 0;
    same_strides &= shape[i] <= 1 || view.strides[i] == strides[i];
  }
  return same_strides || empty;
}

bool read_tensor(PyObject* tensor, TensorView& view) {
  const StableInterface* f = interface_for(tensor);
  const bool readable = f ? read_by_interface(*f, f->handle(tensor), view) : read_by_attributes(tensor, view);
  const int64_t numel = readable ? view.numel() : 0;
  // Without an address: the shell of a subclass that keeps its elements elsewhere.
  return readable && (view.data || numel == 0) && !is_lazy(tensor, view.complex, numel);
}

py::object gradient_of(PyObject* param) {
  static PyObject* const name = PyUnicode_InternFromString("grad");
  // What the look-up of the attribute would call in the end, unless a subclass has a `grad` of its own.
  static const PyGetSetDef* const direct = Py_IS_TYPE(torch().grad.ptr(), &PyGetSetDescr_Type)
                                               ? reinterpret_cast<PyGetSetDescrObject*>(torch().grad.ptr())->d_getset
                                               : nullptr;
  auto gradient = py::reinterpret_steal<py::object>(
      direct && is_plain_type(Py_TYPE(param)) ? direct->get(param, direct->closure) : PyObject_GetAttr(param, name));
  if (!gradient) throw py::error_already_set();
  return gradient;
}

void* data_of(PyObject* tensor) {
  void* data = nullptr;
  if (const StableInterface* f = interface_for(tensor))
    return f->data_ptr(f->handle(tensor), &data) == 0 ? data : nullptr;
  const auto address =
      py::reinterpret_steal<py::object>(PyObject_Vectorcall(torch().data_ptr.ptr(), &tensor, 1, nullptr));
  if (!address) throw py::error_already_set();
  return PyLong_AsVoidPtr(address.ptr());
}

const StableInterface* stable_interface() { return torch().interface ? &*torch().interface : nullptr; }

const StableInterface* interface_for(PyObject* tensor) {
  return torch().use_interface && is_plain_type(Py_TYPE(tensor)) ? &*torch().interface : nullptr;
}

bool uses_stable_interface() { return torch().use_interface; }

void use_stable_interface(bool use) { torch().use_interface = use && torch().interface; }

}  // namespace extrap
