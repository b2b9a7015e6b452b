#include "tensor_view.h"

#include "attribute_reader.h"
#include "stable_reader.h"
#include "tensor_dtypes.h"
#include "torch_types.h"

namespace py = pybind11;

namespace extrap {
namespace {

bool use_stable_interface = false;

}  // namespace

void load_tensor_readers() {
  load_torch_types();
  load_torch_dtypes();
  use_stable_interface = StableReader::load();
}

bool reads_by_stable_interface() { return use_stable_interface; }

void read_by_stable_interface(bool use) { use_stable_interface = use && StableReader::loaded(); }

bool read_memory(PyObject* tensor, TensorView& view) {
  if (use_stable_interface && is_plain_type(Py_TYPE(tensor))) return StableReader::read(tensor, view);
  return is_tensor(tensor) && read_by_attributes(tensor, view);
}

void prefetch_tensor(PyObject* tensor) {
  if (use_stable_interface && is_plain_type(Py_TYPE(tensor))) StableReader::prefetch(tensor);
}

// Lazy conjugation and negation do not show in the memory. A negated view of more than one element is the imaginary
// part of a conjugated tensor, which has gaps and never fits a layout as it is; so only single elements are asked.
bool is_lazy(PyObject* tensor, const TensorView& view) {
  if (!view.complex && view.numel() != 1) return false;
  const py::handle handle(tensor);
  return (view.complex && handle.attr("is_conj")().cast<bool>()) || handle.attr("is_neg")().cast<bool>();
}

bool read_tensor(PyObject* tensor, TensorView& view) { return read_memory(tensor, view) && !is_lazy(tensor, view); }

bool storage_suffices(PyObject* tensor, const TensorView& view) {
  const py::object storage = py::handle(tensor).attr("untyped_storage")();
  const auto begin = storage.attr("data_ptr")().cast<uintptr_t>();
  const uintptr_t end =
      reinterpret_cast<uintptr_t>(view.data) + static_cast<uintptr_t>(view.real_numel()) * bytes_of(view.dtype);
  return end <= begin + storage.attr("nbytes")().cast<uintptr_t>();
}

}  // namespace extrap
