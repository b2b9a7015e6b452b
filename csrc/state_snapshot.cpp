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
    for (Py_ssize_t left = PyDict_GET_SIZE(entries); left > 0 && PyDict_Next(entries, &inner, nullptr, &value); --left)
      if (!visit(value)) return false;
  }
  return true;
}

// A number that changes whenever the dict does (PEP 509), which later Pythons have no more.
#if PY_VERSION_HEX < 0x030C0000
constexpr bool kHasVersions = true;
uint64_t version_of(PyObject* dict) { return reinterpret_cast<PyDictObject*>(dict)->ma_version_tag; }
#else
constexpr bool kHasVersions = false;
uint64_t version_of(PyObject*) { return 0; }
#endif

}  // namespace

StateSnapshot::StateSnapshot(const py::dict& state) {
  walk(state.ptr(), [this](PyObject* object) {
    objects_.push_back(py::reinterpret_borrow<py::object>(object));
    if (kHasVersions && PyDict_Check(object)) versions_.push_back({object, version_of(object)});
    return true;
  });
  if (kHasVersions) versions_.push_back({state.ptr(), version_of(state.ptr())});
}

bool StateSnapshot::is_untouched(const py::dict& state) const {
  // The last one is that of the state, which holds the other dicts.
  if (versions_.empty() || versions_.back().dict != state.ptr()) return false;
  for (const Version& version : versions_)
    if (version_of(version.dict) != version.tag) return false;
  return true;
}

bool StateSnapshot::matches(const py::dict& state) const {
  if (is_untouched(state)) return true;
  auto expected = objects_.begin();
  const bool same =
      walk(state.ptr(), [&](PyObject* object) { return expected != objects_.end() && (expected++)->ptr() == object; });
  return same && expected == objects_.end();
}

}  // namespace extrap
