// autograd's version counters of some tensors, to increment them in every step.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

namespace extrap {

class VersionCounters {
 public:
  explicit VersionCounters(const pybind11::list& tensors);
  ~VersionCounters();
  VersionCounters(const VersionCounters&) = delete;
  VersionCounters& operator=(const VersionCounters&) = delete;

  // What autograd has saved of the tensors is out of date after this, as after any in-place operation.
  void increment() const;

 private:
  pybind11::object sharer_of(const pybind11::handle& tensor);

  pybind11::object increment_;
  pybind11::list sharers_;
  std::vector<void*> handles_;
};

}  // namespace extrap
