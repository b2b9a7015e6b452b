// The dtypes of tensors that can be stepped: how torch calls them, and what they are here.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstddef>
#include <string>

#include "core/config.h"

namespace extrap {

struct TensorDType {
  const char* name;  // in torch
  DType number;      // what its real numbers are stored as
  bool complex;
  size_t bytes;  // of a real number
};

constexpr size_t kTensorDTypes = 8;
const std::array<TensorDType, kTensorDTypes>& tensor_dtypes();

// Null where a tensor of the dtype cannot be stepped.
const TensorDType* dtype_of_torch(pybind11::handle dtype);

// The format of real numbers of this name. Throws std::invalid_argument for any other.
DType format_named(const std::string& name);
const char* name_of(DType format);
size_t bytes_of(DType format);

// To be called while the module is being imported.
void load_torch_dtypes();

}  // namespace extrap
