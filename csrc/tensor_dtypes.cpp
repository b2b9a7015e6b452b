#include "tensor_dtypes.h"

#include <iterator>
#include <stdexcept>

namespace py = pybind11;

namespace extrap {
namespace {

constexpr uint8_t kComplex = 5;  // DLDataTypeCode

// Of the two of one format, the real one comes first.
constexpr TensorDType kDTypes[] = {
#define EXTRAP_REAL(name, code, bits) {#name, DType::name, false, code, bits},
    EXTRAP_FOR_EACH_DTYPE(EXTRAP_REAL)
#undef EXTRAP_REAL
        {"complex64", DType::float32, true, kComplex, 64},
    {"complex32", DType::float16, true, kComplex, 32},
    {"complex128", DType::float64, true, kComplex, 128},
};

// torch's dtype objects, in the order of the table. They live as long as torch.
PyObject* torch_dtypes[std::size(kDTypes)];

}  // namespace

void load_torch_dtypes() {
  const py::module_ torch = py::module_::import("torch");
  for (size_t i = 0; i < std::size(kDTypes); ++i)
    torch_dtypes[i] = py::object(torch.attr(kDTypes[i].name)).release().ptr();
}

const TensorDType* dtype_of_dlpack(uint8_t code, uint8_t bits) {
  for (const TensorDType& dtype : kDTypes)
    if (dtype.dlpack_code == code && dtype.dlpack_bits == bits) return &dtype;
  return nullptr;
}

const TensorDType* dtype_of_torch(py::handle dtype) {
  for (size_t i = 0; i < std::size(kDTypes); ++i)
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
    if (dtype.number == format && !dtype.complex) return dtype.dlpack_bits / 8;
  throw std::logic_error("a format has no size");
}

}  // namespace extrap
