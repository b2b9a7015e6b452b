#include "state_snapshot.h"

namespace py = pybind11;

namespace extrap {
namespace {

// Calls visit() for every parameter, its dict, and the values in that; stops where it returns false. Walking the dicts
// costs a third of looking the keys up.
template <class Visit>
bool walk(PyObject* state, Visit&& visit) {
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

// Calls visit() for every parameter of the groups, and with null at the end of each; stops where it returns false.
template <class Visit>
bool walk_groups(const py::list& groups, Visit&& visit) {
  for (const py::handle group : groups) {
    for (const py::handle param : py::list(group["params"]))
      if (!visit(param.ptr())) return false;
    if (!visit(nullptr)) return false;
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

// Visits the objects that are expected, one after the other.
class Expected {
 public:
  explicit Expected(const std::vector<py::object>& objects) : next_(objects.begin()), end_(objects.end()) {}

  bool operator()(PyObject* object) { return next_ != end_ && (next_++)->ptr() == object; }
  bool is_at_end() const { return next_ == end_; }

 private:
  std::vector<py::object>::const_iterator next_, end_;
};

}  // namespace

StateSnapshot::StateSnapshot(const py::dict& state, const py::list& groups) {
  walk_groups(groups, [this](PyObject* param) {
    params_.push_back(py::reinterpret_borrow<py::object>(param));
    return true;
  });
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

bool StateSnapshot::matches(const py::dict& state, const py::list& groups) const {
  Expected params(params_);
  if (!walk_groups(groups, params) || !params.is_at_end()) return false;
  if (is_untouched(state)) return true;
  Expected objects(objects_);
  return walk(state.ptr(), objects) && objects.is_at_end();
}

}  // namespace extrap
