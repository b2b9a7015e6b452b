// torch's stable C interface (torch/csrc/inductor/aoti_torch/c/shim.h), found at run time in what torch has loaded: a
// call of it takes a tenth of the time of a method in Python.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>

namespace extrap {

struct StableInterface {
  using Handle = void*;
  // All return 0 unless they fail.
  using Code = int32_t (*)(Handle, int32_t*);
  using Pointer = int32_t (*)(Handle, int64_t**);

  Code layout, dtype, device_type, device_index;
  Pointer sizes, strides;
  int32_t (*dim)(Handle, int64_t*);
  int32_t (*data_ptr)(Handle, void**);
  int32_t (*new_handle)(Handle, Handle*);  // one more owner of a tensor
  int32_t (*delete_handle)(Handle);
  int32_t strided, cpu, cuda;  // constants of the above
  size_t handle_offset;        // where a tensor's Python object holds the C++ tensor
  void* library;

  // Nothing where this torch lacks a part of it.
  static std::optional<StableInterface> find(const pybind11::module_& torch);

  // The value of a constant, `name` being what follows aoti_torch_; nothing where it has none.
  std::optional<int32_t> constant(const std::string& name) const;

  // `tensor`: an instance of torch.Tensor or of a subclass.
  Handle handle(PyObject* tensor) const { return reinterpret_cast<char*>(tensor) + handle_offset; }
};

}  // namespace extrap
