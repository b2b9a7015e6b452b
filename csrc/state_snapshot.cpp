#include "state_snapshot.h"

namespace py = pybind11;

namespace extrap {
namespace {

// Calls visit() for every parameter, its dict, and the values in that; stops where it returns false. Walking the dicts
// costs a third of looking the keys up.
template <class Visit>
bool walk(PyObject* state, const Visit& visit) {
  Py_ssize_t outer = 0;
  PyObject *param, *entries;
  while (PyDict_Next(state, &outer, &param, &entries)) {
    if (!visit(param) || !visit(entries)) return false;
    if (!PyDict_Check(entries)) continue;
    Py_ssize_t inner = 0;
    PyObject* value;
    while (PyDict_Next(entries, &inner, nullptr, &value))
      if (!visit(value)) return false;
  }
  return true;
}

}  // namespace

StateSnapshot::StateSnapshot(const py::dict& state) {
  walk(state.ptr(), [this](PyObject* object) {
    objects_.push_back(py::reinterpret_borrow<py::object>(object));
    return true;
  });
}

bool StateSnapshot::matches(const py::dict& state) const {
  auto expected = objects_.begin();
  const bool same =
      walk(state.ptr(), [&](PyObject* object) { return expected != objects_.end() && (expected++)->ptr() == object; });
  return same && expected == objects_.end();
}

}  // namespace extrap
