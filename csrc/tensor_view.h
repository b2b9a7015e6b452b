// What the native core needs to know of a torch tensor, read without torch's headers.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "core/config.h"

namespace extrap {

constexpr int kMaxDims = 64;  // where torch's own arithmetic ends

// Where a tensor's elements are at this moment. Valid until Python code runs.
struct TensorView {
  void* data;
  DType dtype;  // of its real numbers
  bool complex;
  int32_t device_type;  // kCpuDevice or kCudaDevice
  int32_t device_index;
  int32_t ndim;
  const int64_t *shape, *strides;
  int64_t read_dims[2 * kMaxDims];  // what the two point to if the reader had to copy them

  TensorView() {}  // NOLINT: a reader fills it, for each tensor in each step
  TensorView(const TensorView&) = delete;
  TensorView& operator=(const TensorView&) = delete;

  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < ndim; ++i) n *= shape[i];
    return n;
  }
  int64_t real_numel() const { return numel() * (complex ? 2 : 1); }
};

constexpr int32_t kCpuDevice = 1, kCudaDevice = 2;

// Whether `view` has this shape and, where they matter, these strides.
inline bool has_layout(const TensorView& view, int ndim, const int64_t* shape, const int64_t* strides) {
  if (view.ndim != ndim) return false;
  bool same_strides = true, empty = false;
  for (int i = 0; i < ndim; ++i) {
    if (view.shape[i] != shape[i]) return false;
    empty |= shape[i] == 0;
    same_strides &= shape[i] <= 1 || view.strides[i] == strides[i];
  }
  return same_strides || empty;
}

// Reads `tensor` into `view`. False for what cannot be walked as plain memory of a supported dtype: an object that is
// no tensor, a sparse or meta tensor, an integer dtype, more than kMaxDims. A tensor without memory has null `data`.
// read_tensor() also returns false for lazily conjugated or negated tensors, which read_memory() does not look for.
bool read_tensor(PyObject* tensor, TensorView& view);
bool read_memory(PyObject* tensor, TensorView& view);
// Has the tensor in the cache when it is read.
void prefetch_tensor(PyObject* tensor);
bool is_lazy(PyObject* tensor, const TensorView& view);

// Whether the storage of a dense tensor contains all of its elements.
bool storage_suffices(PyObject* tensor, const TensorView& view);

// By torch's stable C interface, where it can be used, or by attributes, which takes ten times as long and is
// for tests to choose.
bool reads_by_stable_interface();
void read_by_stable_interface(bool use);

// To be called while the module is being imported.
void load_tensor_readers();

}  // namespace extrap
