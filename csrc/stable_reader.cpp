#include "stable_reader.h"

#include <dlfcn.h>

#include <cstring>
#include <iterator>
#include <string>

#include "tensor_dtypes.h"
#include "torch_types.h"

namespace py = pybind11;

namespace extrap {
namespace {

// The address of a C++ tensor, which is a pointer to its implementation.
using Handle = void*;

// All return 0 unless they fail.
struct Functions {
  int32_t (*get_layout)(Handle, int32_t*);
  int32_t (*get_dtype)(Handle, int32_t*);
  int32_t (*get_device_type)(Handle, int32_t*);
  int32_t (*get_device_index)(Handle, int32_t*);
  int32_t (*get_dim)(Handle, int64_t*);
  int32_t (*get_sizes)(Handle, int64_t**);
  int32_t (*get_strides)(Handle, int64_t**);
  int32_t (*get_data_ptr)(Handle, void**);
};

Functions torch;
int32_t strided, cpu, cuda;
const TensorDType* dtypes[64];  // by torch's number for them
size_t handle_offset = 0;       // in a tensor's Python object; 0: not loaded

void* loaded_library() {
  const py::module_ module = py::module_::import("torch");
  const std::string folder = py::str(module.attr("__path__")[py::int_(0)]);
  for (const char* name : {"/lib/libtorch_cpu.so", "/lib/libtorch_cpu.dylib"})
    if (void* library = dlopen((folder + name).c_str(), RTLD_LAZY | RTLD_NOLOAD)) return library;
  return nullptr;
}

template <class Function>
bool find(void* library, const std::string& name, Function& function) {
  void* symbol = dlsym(library, ("aoti_torch_" + name).c_str());
  static_assert(sizeof function == sizeof symbol);
  memcpy(&function, &symbol, sizeof symbol);
  return symbol != nullptr;
}

bool find_constant(void* library, const std::string& name, int32_t& value) {
  int32_t (*function)();
  if (!find(library, name, function)) return false;
  value = function();
  return true;
}

bool find_dtypes(void* library) {
  for (const TensorDType& dtype : tensor_dtypes()) {
    int32_t code;
    if (!find_constant(library, std::string("dtype_") + dtype.name, code)) return false;
    if (code < 0 || static_cast<size_t>(code) >= std::size(dtypes)) return false;
    dtypes[code] = &dtype;
  }
  return true;
}

bool find_all(void* library) {
  return find(library, "get_layout", torch.get_layout) && find(library, "get_dtype", torch.get_dtype) &&
         find(library, "get_device_type", torch.get_device_type) &&
         find(library, "get_device_index", torch.get_device_index) && find(library, "get_dim", torch.get_dim) &&
         find(library, "get_sizes", torch.get_sizes) && find(library, "get_strides", torch.get_strides) &&
         find(library, "get_data_ptr", torch.get_data_ptr) && find_constant(library, "layout_strided", strided) &&
         find_constant(library, "device_type_cpu", cpu) && find_constant(library, "device_type_cuda", cuda) &&
         find_dtypes(library);
}

// torch says the pointer that a handle points to, but not where the handle is: the object is searched for it.
size_t find_handle(const py::handle& tensor) {
  const auto wanted = tensor.attr("_cdata").cast<uintptr_t>();
  const auto size = static_cast<size_t>(Py_TYPE(tensor.ptr())->tp_basicsize);
  for (size_t offset = sizeof(PyObject); offset + sizeof wanted <= size; offset += sizeof wanted)
    if (memcmp(reinterpret_cast<char*>(tensor.ptr()) + offset, &wanted, sizeof wanted) == 0) return offset;
  return 0;
}

// Whether a tensor of two dimensions is read as Python says.
bool reads_rightly(const py::handle& tensor) {
  TensorView view;
  return StableReader::read(tensor.ptr(), view) && view.ndim == 2 && view.dtype == DType::float64 && !view.complex &&
         view.device_type == kCpuDevice &&
         view.data == reinterpret_cast<void*>(tensor.attr("data_ptr")().cast<uintptr_t>()) &&
         py::make_tuple(view.shape[0], view.shape[1]).equal(tensor.attr("shape")) &&
         py::make_tuple(view.strides[0], view.strides[1]).equal(tensor.attr("stride")());
}

}  // namespace

bool StableReader::load() {
  void* library = loaded_library();
  if (!library || !find_all(library)) return false;
  const py::module_ module = py::module_::import("torch");
  const py::object whole =
      module.attr("empty")(4, 6, py::arg("device") = "cpu", py::arg("dtype") = module.attr("double"));
  const py::object probe = whole.attr("narrow")(0, 1, 3).attr("t")();
  handle_offset = find_handle(probe);
  if (handle_offset != 0 && !reads_rightly(probe)) handle_offset = 0;
  return loaded();
}

bool StableReader::loaded() { return handle_offset != 0; }

bool StableReader::read(PyObject* tensor, TensorView& view) {
  const Handle handle = reinterpret_cast<char*>(tensor) + handle_offset;
  int32_t layout, dtype, device;
  int64_t ndim;
  int64_t *shape, *strides;
  // Where a tensor has no strides or no memory, the functions would fail, and say so on stderr.
  if (torch.get_layout(handle, &layout) || layout != strided) return false;
  if (torch.get_device_type(handle, &device) || (device != cpu && device != cuda)) return false;
  if (torch.get_dtype(handle, &dtype) || static_cast<size_t>(dtype) >= std::size(dtypes) || !dtypes[dtype])
    return false;
  if (torch.get_dim(handle, &ndim) || ndim > kMaxDims || torch.get_sizes(handle, &shape) ||
      torch.get_strides(handle, &strides) || torch.get_data_ptr(handle, &view.data))
    return false;
  view.device_index = 0;
  if (device == cuda && torch.get_device_index(handle, &view.device_index)) return false;
  view.dtype = dtypes[dtype]->number;
  view.complex = dtypes[dtype]->complex;
  view.device_type = device == cpu ? kCpuDevice : kCudaDevice;
  view.ndim = static_cast<int32_t>(ndim);
  view.shape = shape;
  view.strides = strides;
  return true;
}

void StableReader::prefetch(PyObject* tensor) {
  const char* implementation;
  memcpy(&implementation, reinterpret_cast<char*>(tensor) + handle_offset, sizeof implementation);
  for (const uintptr_t line : {0, 64, 128})
    __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(implementation) + line));
}

}  // namespace extrap
