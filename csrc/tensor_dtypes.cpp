#include "tensor_dtypes.h"

#include <stdexcept>

namespace py = pybind11;

namespace extrap {
namespace {

// Of the two of one format, the real one comes first.
constexpr std::array<TensorDType, kTensorDTypes> kDTypes = {{
#define EXTRAP_REAL(name, bytes) {#name, DType::name, false, bytes},
    EXTRAP_FOR_EACH_DTYPE(EXTRAP_REAL)
#undef EXTRAP_REAL
        {"complex64", DType::float32, true, 4},
    {"complex32", DType::float16, true, 2},
    {"complex128", DType::float64, true, 8},
}};

// torch's dtype objects, in the order of the table. They live as long as torch.
PyObject* torch_dtypes[kTensorDTypes];

}  // namespace

void load_torch_dtypes() {
  const py::module_ torch = py::module_::import("torch");
  for (size_t i = 0; i < kTensorDTypes; ++i) torch_dtypes[i] = py::object(torch.attr(kDTypes[i].name)).release().ptr();
}

const std::array<TensorDType, kTensorDTypes>& tensor_dtypes() { return kDTypes; }

const TensorDType* dtype_of_torch(py::handle dtype) {
  for (size_t i = 0; i < kTensorDTypes; ++i)
    if (dtype.ptr() == torch_dtypes[i]) return &kDTypes[i];
  return nullptr;
}

DType format_named(const std::string& name) {
  for (const TensorDType& dtype : kDTypes)
    if (!dtype.complex && name == dtype.name) return dtype.number;
  throw std::invalid_argument("numbers cannot be stored as " + name);
}

const char* name_of(DType format) {
  for (const TensorDType& dtype : kDTypes)
    if (dtype.number == format) return dtype.name;
  throw std::logic_error("a format has no name");
}

size_t bytes_of(DType format) {
  for (const TensorDType& dtype : kDTypes)
    if (dtype.number == format) return dtype.bytes;
  throw std::logic_error("a format has no size");
}

}  // namespace extrap
