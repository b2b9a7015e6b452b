// The objects that an optimizer's state consists of, to see in every step whether one was exchanged.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

namespace extrap {

class StateSnapshot {
 public:
  // `state` maps each parameter to a dict of its state.
  explicit StateSnapshot(const pybind11::dict& state);

  // Whether `state` still consists of the same objects in the same order.
  bool matches(const pybind11::dict& state) const;

 private:
  std::vector<pybind11::object> objects_;
};

}  // namespace extrap
