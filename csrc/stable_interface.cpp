#include "stable_interface.h"

#include <dlfcn.h>

#include <cstring>

namespace py = pybind11;

namespace extrap {
namespace {

void* loaded_library(const py::module_& torch) {
  const std::string folder = py::str(torch.attr("__path__")[py::int_(0)]);
  for (const char* name : {"/lib/libtorch_cpu.so", "/lib/libtorch_cpu.dylib"})
    if (void* library = dlopen((folder + name).c_str(), RTLD_LAZY | RTLD_NOLOAD)) return library;
  return nullptr;
}

template <class Function>
bool find_function(void* library, const std::string& name, Function& function) {
  void* symbol = dlsym(library, ("aoti_torch_" + name).c_str());
  static_assert(sizeof function == sizeof symbol);
  memcpy(&function, &symbol, sizeof symbol);
  return symbol != nullptr;
}

// A handle is the address of a C++ tensor, which is a pointer, the one that `_cdata` tells: the object is searched for
// it.
size_t find_handle(py::handle tensor) {
  const auto wanted = tensor.attr("_cdata").cast<uintptr_t>();
  const auto size = static_cast<size_t>(Py_TYPE(tensor.ptr())->tp_basicsize);
  for (size_t offset = sizeof(PyObject); offset + sizeof wanted <= size; offset += sizeof wanted)
    if (memcmp(reinterpret_cast<char*>(tensor.ptr()) + offset, &wanted, sizeof wanted) == 0) return offset;
  return 0;
}

// Whether the interface says of a tensor of two dimensions what Python says.
bool agrees(const StableInterface& f, py::handle tensor) {
  const StableInterface::Handle handle = f.handle(tensor.ptr());
  void* data = nullptr;
  int64_t *sizes = nullptr, *strides = nullptr, dim = 0;
  if (f.data_ptr(handle, &data) || f.dim(handle, &dim) || f.sizes(handle, &sizes) || f.strides(handle, &strides))
    return false;
  return data == reinterpret_cast<void*>(tensor.attr("data_ptr")().cast<uintptr_t>()) && dim == 2 &&
         py::make_tuple(sizes[0], sizes[1]).equal(tensor.attr("shape")) &&
         py::make_tuple(strides[0], strides[1]).equal(tensor.attr("stride")());
}

}  // namespace

std::optional<int32_t> StableInterface::constant(const std::string& name) const {
  int32_t (*function)();
  if (!find_function(library, name, function)) return std::nullopt;
  return function();
}

std::optional<StableInterface> StableInterface::find(const py::module_& torch) {
  StableInterface f{};
  f.library = loaded_library(torch);
  if (!f.library) return std::nullopt;
  const auto strided = f.constant("layout_strided"), cpu = f.constant("device_type_cpu"),
             cuda = f.constant("device_type_cuda");
  if (!strided || !cpu || !cuda || !find_function(f.library, "get_layout", f.layout) ||
      !find_function(f.library, "get_dtype", f.dtype) || !find_function(f.library, "get_device_type", f.device_type) ||
      !find_function(f.library, "get_device_index", f.device_index) ||
      !find_function(f.library, "get_sizes", f.sizes) || !find_function(f.library, "get_strides", f.strides) ||
      !find_function(f.library, "get_dim", f.dim) || !find_function(f.library, "get_data_ptr", f.data_ptr) ||
      !find_function(f.library, "new_tensor_handle", f.new_handle) ||
      !find_function(f.library, "delete_tensor_object", f.delete_handle))
    return std::nullopt;
  f.strided = *strided;
  f.cpu = *cpu;
  f.cuda = *cuda;
  const py::object probe = torch.attr("empty")(3, 5, py::arg("device") = "cpu").attr("t")();
  f.handle_offset = find_handle(probe);
  if (f.handle_offset == 0 || !agrees(f, probe)) return std::nullopt;
  return f;
}

}  // namespace extrap
