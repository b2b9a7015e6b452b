#include "state_reader.h"

#include <unordered_map>

namespace py = pybind11;

namespace extrap {
namespace {

// Calls visit() for every parameter of the groups, and with null at the end of each; stops if it returns false.
template <class Visit>
bool walk_groups(const py::list& groups, Visit&& visit) {
  for (const py::handle group : groups) {
    for (const py::handle param : py::list(group["params"]))
      if (!visit(param.ptr())) return false;
    if (!visit(nullptr)) return false;
  }
  return true;
}

// Whether the groups consist of `params`, see StateReader::params_.
bool consist_of(const py::list& groups, const std::vector<py::object>& params) {
  auto next = params.begin();
  const auto is_next = [&](PyObject* param) { return next != params.end() && (next++)->ptr() == param; };
  return walk_groups(groups, is_next) && next == params.end();
}

}  // namespace

StateReader::StateReader(const py::dict& state, const py::list& groups) {
  std::unordered_map<PyObject*, size_t> place_of;
  for (const auto [key, entries] : state) {
    place_of[key.ptr()] = keys_.size();
    keys_.push_back(py::reinterpret_borrow<py::object>(key));
  }
  walk_groups(groups, [&](PyObject* param) {
    params_.push_back(py::reinterpret_borrow<py::object>(param));
    if (param) {
      const auto found = place_of.find(param);
      places_.push_back(found == place_of.end() ? keys_.size() : found->second);
    }
    return true;
  });
}

py::object StateReader::read(const py::dict& state, const py::list& groups) const {
  if (!consist_of(groups, params_)) return py::none();
  std::vector<PyObject*> of_keys;  // borrowed: no Python code runs before the list holds them
  of_keys.reserve(keys_.size() + 1);
  Py_ssize_t position = 0;
  PyObject *key, *entries;
  while (PyDict_Next(state.ptr(), &position, &key, &entries)) {
    if (of_keys.size() == keys_.size() || keys_[of_keys.size()].ptr() != key) return py::none();
    of_keys.push_back(entries);
  }
  if (of_keys.size() != keys_.size()) return py::none();
  of_keys.push_back(Py_None);
  py::list states(places_.size());
  for (size_t i = 0; i < places_.size(); ++i)
    PyList_SET_ITEM(states.ptr(), static_cast<Py_ssize_t>(i), py::handle(of_keys[places_[i]]).inc_ref().ptr());
  return states;
}

}  // namespace extrap
