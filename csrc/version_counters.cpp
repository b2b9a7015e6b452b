#include "version_counters.h"

#include "stable_interface.h"
#include "tensor_view.h"

namespace py = pybind11;

namespace extrap {

VersionCounters::VersionCounters(const py::list& tensors)
    : increment_(py::module_::import("torch.autograd.graph").attr("increment_version")) {
  for (const py::handle tensor : tensors) sharers_.append(sharer_of(tensor));
}

VersionCounters::~VersionCounters() {
  for (void* handle : handles_) stable_interface()->delete_handle(handle);
}

// A tensor without memory that shares the counter. torch increments it in half the time where its C++ part has a second
// owner, and a second owner of the tensor itself would show: torch.utils.swap_tensors() refuses those.
py::object VersionCounters::sharer_of(const py::handle& tensor) {
  const StableInterface* interface = interface_for(tensor.ptr());
  if (!interface || tensor.attr("is_inference")().cast<bool>()) return py::reinterpret_borrow<py::object>(tensor);
  py::object sharer = tensor.attr("detach")();
  sharer.attr("data") = sharer.attr("new_empty")(0);
  StableInterface::Handle handle;
  if (interface->new_handle(interface->handle(sharer.ptr()), &handle) == 0) handles_.push_back(handle);
  return sharer;
}

void VersionCounters::increment() const { increment_(sharers_); }

}  // namespace extrap
