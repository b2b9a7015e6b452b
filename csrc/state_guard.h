// Which parameters an optimizer's groups have, and which dict is the state of each, to see in every step whether one
// was exchanged. What is inside the dicts is read anew in every step, so it is not compared.
#pragma once

#include <pybind11/pybind11.h>

#include <vector>

namespace extrap {

class StateGuard {
 public:
  // `state` maps each parameter to a dict of its state; each of the groups is a dict with a list `params`.
  StateGuard(const pybind11::dict& state, const pybind11::list& groups);

  // Whether both still consist of the same objects in the same order.
  bool matches(const pybind11::dict& state, const pybind11::list& groups) const;

 private:
  // Held, so that no other object can get the identity of one of them. Null: the end of a group.
  std::vector<pybind11::object> params_, state_;
};

}  // namespace extrap
