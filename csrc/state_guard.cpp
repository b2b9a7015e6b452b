#include "state_guard.h"

namespace py = pybind11;

namespace extrap {
namespace {

// Calls visit() for every parameter and its dict; stops if it returns false.
template <class Visit>
bool walk_state(const py::dict& state, Visit&& visit) {
  Py_ssize_t position = 0;
  PyObject *param, *entries;
  while (PyDict_Next(state.ptr(), &position, &param, &entries))
    if (!visit(param) || !visit(entries)) return false;
  return true;
}

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

auto collect_into(std::vector<py::object>& objects) {
  return [&objects](PyObject* object) {
    objects.push_back(py::reinterpret_borrow<py::object>(object));
    return true;
  };
}

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

StateGuard::StateGuard(const py::dict& state, const py::list& groups) {
  walk_groups(groups, collect_into(params_));
  walk_state(state, collect_into(state_));
}

bool StateGuard::matches(const py::dict& state, const py::list& groups) const {
  Expected params(params_), entries(state_);
  return walk_groups(groups, params) && params.is_at_end() && walk_state(state, entries) && entries.is_at_end();
}

}  // namespace extrap
