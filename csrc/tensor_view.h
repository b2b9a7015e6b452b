// What the native core needs to know of a torch tensor, read without torch's headers.
#pragma once

#include <Python.h>

#include <cstdint>
#include <vector>

#include "core/config.h"

namespace extrap {

struct TensorView {
  void* data = nullptr;
  DType dtype = DType::float32;
  bool complex = false;
  int32_t device_type = 0;  // as in DLPack: 1 is the CPU
  int32_t device_index = 0;
  std::vector<int64_t> shape, strides;

  int64_t numel() const {
    int64_t n = 1;
    for (int64_t size : shape) n *= size;
    return n;
  }
  bool same_layout(const TensorView& other) const;
};

// Reads `tensor` into `view`. False where it cannot be walked as plain memory of a supported dtype: a sparse or lazily
// conjugated tensor, an integer dtype. Throws pybind11::error_already_set where it is no tensor.
bool read_tensor(PyObject* tensor, TensorView& view);

// Whether read_tensor() may use the C exchange interface of torch (torch 2.10 and newer; on where it is there). Without
// it, attributes are read one by one.
bool exchange_interface();
void use_exchange_interface(bool use);

}  // namespace extrap
