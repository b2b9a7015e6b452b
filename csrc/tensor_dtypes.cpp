#include "tensor_dtypes.h"

#include <iterator>
#include <stdexcept>

namespace py = pybind11;

namespace extrap {
namespace {

constexpr uint8_t kFloat = 2, kBfloat = 4, kComplex = 5;  // DLDataTypeCode

// Of the two of one format, the real one comes first.
constexpr TensorDType kDTypes[] = {
    {"float32", DType::float32, false, kFloat, 32},      {"float64", DType::float64, false, kFloat, 64},
    {"bfloat16", DType::bfloat16, false, kBfloat, 16},   {"float16", DType::float16, false, kFloat, 16},
    {"complex64", DType::float32, true, kComplex, 64},   {"complex32", DType::float16, true, kComplex, 32},
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
