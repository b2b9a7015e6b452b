// The objects that an optimizer's state and the parameters of its groups are, to see in every step whether one was
// exchanged.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

namespace extrap {

class StateSnapshot {
 public:
  // `state` maps each parameter to a dict of its state; each of the groups is a dict with a list `params`.
  StateSnapshot(const pybind11::dict& state, const pybind11::list& groups);

  // Whether both still consist of the same objects in the same order.
  bool matches(const pybind11::dict& state, const pybind11::list& groups) const;

 private:
  bool is_untouched(const pybind11::dict& state) const;

  std::vector<pybind11::object> objects_, params_;
  struct Version {
    PyObject* dict;  // among the objects, or the state itself
    uint64_t tag;
  };
  std::vector<Version> versions_;  // of all dicts, where Python counts them
};

}  // namespace extrap
