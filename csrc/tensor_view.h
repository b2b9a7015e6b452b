// What the native core needs to know of a torch tensor, read without torch's headers.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "core/config.h"
#include "stable_interface.h"

namespace extrap {

constexpr int kMaxDims = 64;  // where torch's own arithmetic ends

struct TensorView {
  void* data = nullptr;
  DType dtype = DType::float32;
  bool complex = false;
  int32_t device_type = 0;  // as in DLPack: 1 is the CPU
  int32_t device_index = 0;
  int32_t ndim = 0;
  int64_t shape[kMaxDims], strides[kMaxDims];

  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < ndim; ++i) n *= shape[i];
    return n;
  }
};

// Whether `view` has this shape and, where they matter, these strides.
bool has_layout(const TensorView& view, int ndim, const int64_t* shape, const int64_t* strides);

// Reads `tensor` into `view`. False where it cannot be walked as plain memory of a supported dtype: a sparse or lazily
// conjugated tensor, one that wraps others, an integer dtype, more than kMaxDims. Throws pybind11::error_already_set
// where it is no tensor.
bool read_tensor(PyObject* tensor, TensorView& view);

// Parts of the above that are asked of every tensor in every step: `param.grad`, and where the elements are.
pybind11::object gradient_of(PyObject* param);
void* data_of(PyObject* tensor);

// torch's stable C interface where this torch has it, and whether it may be used (it is, unless a test says otherwise);
// without it, tensors are read by their attributes. interface_for() is null for a tensor that must be.
const StableInterface* stable_interface();
const StableInterface* interface_for(PyObject* tensor);
bool uses_stable_interface();
void use_stable_interface(bool use);

}  // namespace extrap
