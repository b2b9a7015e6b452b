#include "dlpack_reader.h"

#include "tensor_dtypes.h"
#include "torch_types.h"

namespace py = pybind11;

namespace extrap {
namespace {

// As DLPack 1 lays them out; functions that are not called here are left without a type.
struct Version {
  uint32_t major, minor;
};

struct Tensor {
  void* data;
  int32_t device_type, device_index;
  int32_t ndim;
  uint8_t dtype_code, dtype_bits;
  uint16_t dtype_lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

struct ExchangeTable {
  Version version;
  const ExchangeTable* previous;
  void *allocate, *export_owner, *import_owner;
  int (*view)(void* object, Tensor* view);  // 0, or -1 with a Python error; may be null
  void* current_stream;
};

constexpr uint32_t kMajorVersion = 1;

const ExchangeTable* table = nullptr;

}  // namespace

bool DlpackReader::load() {
  const py::object capsule = py::getattr(torch_types().tensor, "__dlpack_c_exchange_api__", py::none());
  if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return false;
  const auto* found = static_cast<ExchangeTable*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  while (found && found->version.major != kMajorVersion) found = found->previous;
  table = found && found->view ? found : nullptr;
  return loaded();
}

bool DlpackReader::loaded() { return table != nullptr; }

bool DlpackReader::read(PyObject* tensor, TensorView& view) {
  Tensor seen;
  if (table->view(tensor, &seen) != 0) {
    PyErr_Clear();  // it cannot be viewed: sparse, meta, ...
    return false;
  }
  const TensorDType* dtype = dtype_of_dlpack(seen.dtype_code, seen.dtype_bits);
  if (!dtype || seen.dtype_lanes != 1 || seen.ndim > kMaxDims) return false;
  if (seen.device_type != kCpuDevice && seen.device_type != kCudaDevice) return false;
  view.data = seen.data ? static_cast<char*>(seen.data) + seen.byte_offset : nullptr;
  view.dtype = dtype->number;
  view.complex = dtype->complex;
  view.device_type = seen.device_type;
  view.device_index = seen.device_index;
  view.ndim = seen.ndim;
  view.shape = seen.shape;
  view.strides = seen.strides;
  return true;
}

}  // namespace extrap
