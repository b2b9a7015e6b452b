// Reads the state of every parameter of an optimizer, anew in each step: nothing of it is kept in between, so that
// state which is taken out of the optimizer is freed.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <vector>

namespace extrap {

class StateReader {
 public:
  // `state` maps parameters to dicts of their state; each of the groups is a dict with a list `params`.
  StateReader(const pybind11::dict& state, const pybind11::list& groups);

  // A list with the state of each parameter in the order of the groups, None where there is none. None in place of the
  // list if the groups, or the keys of `state`, are no longer the objects they were, in the same order.
  pybind11::object read(const pybind11::dict& state, const pybind11::list& groups) const;

 private:
  // Held, so that no other object can get the identity of one of them. Null: the end of a group.
  std::vector<pybind11::object> params_, keys_;
  // For each parameter, where its key is among the keys; the number of keys if it has none.
  std::vector<size_t> places_;
};

}  // namespace extrap
