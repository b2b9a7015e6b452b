#include "group_options.h"

#include <stdexcept>
#include <string>

namespace py = pybind11;

namespace extrap {
namespace {

// Borrowed; null where the group lacks the option or has None.
PyObject* option(const py::dict& group, const char* name) {
  PyObject* value = PyDict_GetItemString(group.ptr(), name);
  return value == Py_None ? nullptr : value;
}

void read(const py::dict& group, const char* name, double& out) {
  // Through __float__, so that tensors of one element are taken as well.
  if (PyObject* value = option(group, name)) out = PyFloat_AsDouble(value);
  if (PyErr_Occurred()) throw py::error_already_set();
}

void read(const py::dict& group, const char* name, uint64_t& out) {
  if (PyObject* value = option(group, name)) out = PyLong_AsUnsignedLongLong(value);
  if (PyErr_Occurred()) throw py::error_already_set();
}

void read(const py::dict& group, const char* name, Flag& out) {
  if (PyObject* value = option(group, name)) out = PyObject_IsTrue(value) == 1;
}

void read(const py::dict& group, const char* name, double& first, double& second) {
  PyObject* value = option(group, name);
  if (!value) return;
  const auto pair = py::reinterpret_borrow<py::sequence>(value);
  first = py::float_(pair[0]);
  second = py::float_(pair[1]);
}

template <class Choice>
struct Named {
  const char* name;
  Choice value;
};

template <class Choice, size_t kCount>
void read(const py::dict& group, const char* name, const Named<Choice> (&choices)[kCount], Choice& out) {
  PyObject* value = option(group, name);
  if (!value) return;
  const auto text = py::handle(value).cast<std::string>();
  for (const Named<Choice>& choice : choices)
    if (text == choice.name) {
      out = choice.value;
      return;
    }
  throw std::invalid_argument("Invalid " + std::string(name) + " value: '" + text + "'");
}

constexpr Named<Extrapolation> kExtrapolations[] = {{"past_gradient", Extrapolation::past_gradient},
                                                    {"past_update", Extrapolation::past_update},
                                                    {"extragradient", Extrapolation::extragradient}};
constexpr Named<Noise> kNoises[] = {{"uniform", Noise::uniform}, {"gaussian", Noise::gaussian}};
constexpr Named<NoiseScale> kNoiseScales[] = {{"absolute", NoiseScale::absolute},
                                              {"tensor", NoiseScale::tensor},
                                              {"filter", NoiseScale::filter},
                                              {"gradient", NoiseScale::gradient}};

}  // namespace

StepConfig read_group_options(const py::dict& group, bool learning_rates) {
  StepConfig c;
  if (learning_rates) {
    read(group, "lr", c.lr);
    c.extrap_lr = c.lr;
  }
  if (!option(group, "extrap_lr"))
    read(group, "extrap_ratio", c.extrap_ratio);
  else if (learning_rates)
    read(group, "extrap_lr", c.extrap_lr);
  read(group, "weight_decay", c.weight_decay);
  read(group, "momentum", c.momentum);
  read(group, "dampening", c.dampening);
  read(group, "betas", c.beta1, c.beta2);
  read(group, "eps", c.eps);
  read(group, "trust_coefficient", c.trust_coefficient);
  read(group, "noise_std", c.noise_std);
  read(group, "seed", c.seed);
  read(group, "nesterov", c.nesterov);
  read(group, "maximize", c.maximize);
  read(group, "decoupled_weight_decay", c.decoupled_weight_decay);
  read(group, "extrapolation", kExtrapolations, c.extrapolation);
  read(group, "noise", kNoises, c.noise);
  read(group, "noise_scale", kNoiseScales, c.noise_scale);
  return c;
}

}  // namespace extrap
