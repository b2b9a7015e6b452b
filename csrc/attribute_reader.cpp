#include "attribute_reader.h"

#include <string>

#include "tensor_dtypes.h"
#include "torch_types.h"

namespace py = pybind11;

namespace extrap {
namespace {

bool read(py::handle tensor, TensorView& view) {
  if (!py::object(tensor.attr("layout")).is(torch_types().strided)) return false;
  const py::object device = tensor.attr("device");
  const TensorDType* dtype = dtype_of_torch(tensor.attr("dtype"));
  const std::string kind = py::str(device.attr("type"));
  if (!dtype || (kind != "cpu" && kind != "cuda")) return false;
  const py::tuple shape = tensor.attr("shape"), strides = tensor.attr("stride")();
  if (shape.size() > kMaxDims) return false;
  view.dtype = dtype->number;
  view.complex = dtype->complex;
  view.device_type = kind == "cpu" ? kCpuDevice : kCudaDevice;
  view.device_index = device.attr("index").is_none() ? 0 : device.attr("index").cast<int32_t>();
  view.ndim = static_cast<int32_t>(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) {
    view.read_dims[i] = shape[i].cast<int64_t>();
    view.read_dims[kMaxDims + i] = strides[i].cast<int64_t>();
  }
  view.shape = view.read_dims;
  view.strides = view.read_dims + kMaxDims;
  view.data = reinterpret_cast<void*>(tensor.attr("data_ptr")().cast<uintptr_t>());
  return true;
}

}  // namespace

bool read_by_attributes(PyObject* tensor, TensorView& view) {
  try {
    return read(tensor, view);
  } catch (py::error_already_set& error) {
    // What torch raises for a tensor that has no storage or no strides.
    if (error.matches(PyExc_RuntimeError)) return false;
    throw;
  }
}

}  // namespace extrap
