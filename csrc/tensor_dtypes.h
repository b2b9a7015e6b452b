// The dtypes of tensors that can be stepped: how torch and DLPack call them, and what they are here.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/config.h"

namespace extrap {

struct TensorDType {
  const char* name;  // in torch
  DType number;      // what its real numbers are stored as
  bool complex;
  uint8_t dlpack_code, dlpack_bits;
};

// Null where a tensor of the dtype cannot be stepped.
const TensorDType* dtype_of_dlpack(uint8_t code, uint8_t bits);
const TensorDType* dtype_of_torch(pybind11::handle dtype);

// The format of real numbers of this name. Throws std::invalid_argument for any other.
DType format_named(const std::string& name);
const char* name_of(DType format);
size_t bytes_of(DType format);

// To be called while the module is being imported.
void load_torch_dtypes();

}  // namespace extrap
