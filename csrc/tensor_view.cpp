#include "tensor_view.h"

#include <pybind11/pybind11.h>

#include <string>

namespace py = pybind11;

namespace extrap {
namespace {

// The part of the DLPack 1.3 C exchange interface that is used here; the layout is fixed by that standard.
struct DLTensor {
  void* data;
  int32_t device_type, device_index;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};

struct DLPackExchangeApi {
  uint32_t major, minor;
  const void* previous;
  void* managed_tensor_allocator;
  void* managed_tensor_from_object;
  void* managed_tensor_to_object;
  int (*tensor_from_object)(void* object, DLTensor* out);
  void* current_work_stream;
};

constexpr uint8_t kDLFloat = 2, kDLBfloat = 4, kDLComplex = 5;

struct Torch {
  const DLPackExchangeApi* exchange = nullptr;
  bool use_exchange = false;
  py::object tensor_type, strided, data_ptr, grad;

  Torch() {
    const py::module_ torch = py::module_::import("torch");
    tensor_type = torch.attr("Tensor");
    strided = torch.attr("strided");
    data_ptr = tensor_type.attr("data_ptr");
    grad = tensor_type.attr("grad");
    if (!py::hasattr(tensor_type, "__dlpack_c_exchange_api__")) return;
    const py::object capsule = tensor_type.attr("__dlpack_c_exchange_api__");
    const auto* api = static_cast<const DLPackExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (!api) throw py::error_already_set();
    if (api->major == 1) exchange = api;
    use_exchange = exchange != nullptr;
  }
};

Torch& torch() {
  // Never destroyed: the interpreter may be gone by then.
  static Torch* instance = new Torch();
  return *instance;
}

bool set_dtype(uint8_t code, int bits, TensorView& view) {
  view.complex = code == kDLComplex;
  const int real_bits = view.complex ? bits / 2 : bits;
  if (code == kDLBfloat && bits == 16)
    view.dtype = DType::bfloat16;
  else if (code != kDLFloat && code != kDLComplex)
    return false;
  else if (real_bits == 16)
    view.dtype = DType::float16;
  else if (real_bits == 32)
    view.dtype = DType::float32;
  else if (real_bits == 64)
    view.dtype = DType::float64;
  else
    return false;
  return true;
}

// Lazy conjugation and negation do not show in the memory. A negated view of more than one element is the imaginary
// part of a conjugated tensor, which has gaps and never fits a layout as it is; so only single elements are asked.
bool is_lazy(py::handle tensor, bool complex, int64_t numel) {
  if (complex) return tensor.attr("is_conj")().cast<bool>();
  return numel == 1 && tensor.attr("is_neg")().cast<bool>();
}

bool read_by_exchange(PyObject* tensor, TensorView& view) {
  DLTensor t;
  if (torch().exchange->tensor_from_object(tensor, &t) != 0) {
    // A sparse tensor or one on a device that DLPack has no number for.
    PyErr_Clear();
    return false;
  }
  if (t.ndim > kMaxDims) return false;
  view.data = static_cast<char*>(t.data) + t.byte_offset;
  view.device_type = t.device_type;
  view.device_index = t.device_index;
  view.ndim = t.ndim;
  for (int i = 0; i < t.ndim; ++i) {
    view.shape[i] = t.shape[i];
    view.strides[i] = t.strides[i];
  }
  return set_dtype(t.code, t.bits, view);
}

bool read_by_attributes(py::handle tensor, TensorView& view) {
  if (!py::object(tensor.attr("layout")).is(torch().strided)) return false;
  const py::object dtype = tensor.attr("dtype"), device = tensor.attr("device");
  const std::string name = py::str(dtype), kind = py::str(device.attr("type"));
  if (kind != "cpu" && kind != "cuda") return false;
  const bool complex = dtype.attr("is_complex").cast<bool>();
  if (!complex && !dtype.attr("is_floating_point").cast<bool>()) return false;
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
  const uint8_t code = name == "torch.bfloat16" ? kDLBfloat : complex ? kDLComplex : kDLFloat;
  return set_dtype(code, 8 * dtype.attr("itemsize").cast<int>(), view);
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
  const bool readable = torch().use_exchange ? read_by_exchange(tensor, view) : read_by_attributes(tensor, view);
  return readable && !is_lazy(tensor, view.complex, view.numel());
}

py::object gradient_of(PyObject* param) {
  // The descriptor is called without the look-up of the attribute, unless a subclass has one of its own.
  static PyObject* const name = PyUnicode_InternFromString("grad");
  PyObject* descriptor = torch().grad.ptr();
  static const descrgetfunc get = Py_TYPE(descriptor)->tp_descr_get;
  static PyTypeObject* checked = nullptr;
  PyTypeObject* type = Py_TYPE(param);
  if (type != checked) {
    if (!py::object(py::handle(reinterpret_cast<PyObject*>(type)).attr("grad")).is(torch().grad)) {
      auto own = py::reinterpret_steal<py::object>(PyObject_GetAttr(param, name));
      if (!own) throw py::error_already_set();
      return own;
    }
    checked = type;
  }
  auto gradient = py::reinterpret_steal<py::object>(get(descriptor, param, reinterpret_cast<PyObject*>(type)));
  if (!gradient) throw py::error_already_set();
  return gradient;
}

void* data_of(PyObject* tensor) {
  const auto address =
      py::reinterpret_steal<py::object>(PyObject_Vectorcall(torch().data_ptr.ptr(), &tensor, 1, nullptr));
  if (!address) throw py::error_already_set();
  return PyLong_AsVoidPtr(address.ptr());
}

bool exchange_interface() { return torch().use_exchange; }

void use_exchange_interface(bool use) { torch().use_exchange = use && torch().exchange; }

}  // namespace extrap
