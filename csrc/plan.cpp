#include "plan.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "cpu/driver.h"
#include "group_options.h"

namespace extrap {
namespace {

constexpr int64_t kChunkSize = 16384;  // elements; a multiple of every kernel's block

size_t bytes_of(DType dtype) {
  switch (dtype) {
    case DType::float64:
      return 8;
    case DType::float32:
      return 4;
    default:
      return 2;
  }
}

int64_t real_numel(const TensorView& view) { return view.numel() * (view.complex ? 2 : 1); }

[[noreturn]] void reject(const std::string& what, size_t i) {
  throw std::invalid_argument(what + " (tensor " + std::to_string(i) + " of its bucket)");
}

}  // namespace

Plan::Plan(std::string rule, py::list params, py::list targets, py::list states, py::tuple state_names,
           const std::vector<uint32_t>& indices, bool gradient_like_param, const std::vector<Shard>& shards,
           bool step_on_device)
    : rule_(std::move(rule)),
      params_(std::move(params)),
      targets_(std::move(targets)),
      states_(std::move(states)),
      state_names_(std::move(state_names)),
      gradient_like_param_(gradient_like_param),
      step_on_device_(step_on_device) {
  if (state_names_.size() > kMaxBuffers) throw std::invalid_argument("a rule has at most 2 buffers");
  if (targets_.size() != params_.size() || states_.size() != params_.size() || indices.size() != params_.size() ||
      (!shards.empty() && shards.size() != params_.size()))
    throw std::invalid_argument("params, targets, states, indices and shards must have the same length");
  for (size_t i = 0; i < params_.size(); ++i) add(i, indices[i], shards.empty() ? nullptr : &shards[i]);
  if (!rule_kernels().step)
    throw std::invalid_argument("there is no rule '" + rule_ + "' with " + std::to_string(state_names_.size()) +
                                " buffers");
}

void* Plan::state_pointer(PyObject* state, const std::string& name, const TensorView& target) {
  PyObject* tensor = PyDict_GetItemString(state, name.c_str());
  TensorView view;
  if (!tensor || !read_tensor(tensor, view))
    reject("state '" + name + "' is missing or no dense tensor", members_.size());
  if (view.dtype != base_dtype() || view.complex != target.complex || view.device_type != device_type_ ||
      view.device_index != device_index_ || !has_layout(view, target.ndim, target.shape, target.strides))
    reject("state '" + name + "' has another shape, stride, device or dtype than the parameter asks for",
           members_.size());
  // Should the tensor be given another storage, the old one must outlive the pointer to it.
  held_storage_.push_back(py::handle(tensor).attr("untyped_storage")());
  return view.data;
}

void Plan::add(size_t i, uint32_t index, const Shard* shard) {
  TensorView target;
  if (!read_tensor(targets_[i].ptr(), target) || (target.device_type != 1 && target.device_type != 2))
    reject(
        "a parameter must be a dense CPU or CUDA tensor of float32, float64, bfloat16, float16 or complex with at "
        "most 64 dims",
        i);
  if (i > 0 && (target.dtype != dtype_ || target.complex != complex_)) reject("a bucket must have one dtype", i);
  if (i > 0 && (target.device_type != device_type_ || target.device_index != device_index_))
    reject("a bucket must have one device", i);
  dtype_ = target.dtype;
  complex_ = target.complex;
  device_type_ = target.device_type;
  device_index_ = target.device_index;

  Member member{};
  member.param = params_[i].ptr();
  member.target = targets_[i].ptr();
  member.state = states_[i].ptr();
  member.ndim = target.ndim;
  member.dims = dims_.size();
  dims_.insert(dims_.end(), target.shape, target.shape + target.ndim);
  dims_.insert(dims_.end(), target.strides, target.strides + target.ndim);

  TensorEntry entry{};
  entry.numel = real_numel(target);
  const Shard whole{0, entry.numel, 0, entry.numel, target.ndim > 0 ? target.shape[0] : 1};
  const Shard& part = shard ? *shard : whole;
  entry.offset = part.offset;
  entry.extent = std::max<int64_t>(1, part.run);
  entry.stride = part.pitch;
  member.numel = static_cast<double>(part.numel);
  member.row_numel = member.numel / static_cast<double>(std::max<int64_t>(1, part.rows));
  entry.y = target.data;
  entry.index = index;
  entry.trust = 1;
  entry.base = state_pointer(member.state, "base", target);
  for (size_t k = 0; k < state_names_.size(); ++k)
    entry.buffers[k] = state_pointer(member.state, state_names_[k].cast<std::string>(), target);
  PyObject* step = PyDict_GetItemString(member.state, "step");
  TensorView view;
  if (!step || !read_tensor(step, view) || view.numel() != 1 || view.complex ||
      view.device_type != (step_on_device_ ? device_type_ : 1) ||
      (view.dtype != DType::float32 && (step_on_device_ || view.dtype != DType::float64)))
    reject(
        "state 'step' must be a tensor of one element: float32 on the parameter's device, or float32 or float64 on "
        "the CPU for a backend of the host",
        i);
  member.step = view.data;
  member.step_is_double = view.dtype == DType::float64;

  for (int64_t begin = 0; begin < entry.numel; begin += kChunkSize)
    chunks_.push_back(
        {static_cast<int32_t>(i), begin, begin + kChunkSize < entry.numel ? kChunkSize : entry.numel - begin});
  numel_ += entry.numel;
  members_.push_back(member);
  entries_.push_back(entry);
}

// Code that moves optimizer state, to another device and back for example, moves all of it: one tensor tells.
bool Plan::state_has_moved() const {
  if (members_.empty()) return false;
  const Member& first = members_.front();
  const TensorEntry& entry = entries_.front();
  if (data_of(PyDict_GetItemString(first.state, "base")) != entry.base) return true;
  for (size_t k = 0; k < state_names_.size(); ++k)
    if (data_of(PyDict_GetItem(first.state, state_names_[k].ptr())) != entry.buffers[k]) return true;
  return data_of(PyDict_GetItemString(first.state, "step")) != first.step;
}

bool Plan::read_gradient(PyObject* gradient, const Member& member, const void*& pointer) const {
  TensorView view;
  const int64_t* shape = dims_.data() + member.dims;
  if (!read_tensor(gradient, view) || view.dtype != gradient_dtype() || view.complex != complex_ ||
      view.device_type != device_type_ || view.device_index != device_index_ ||
      !has_layout(view, member.ndim, shape, shape + member.ndim))
    return false;
  pointer = view.data;
  return true;
}

py::object Plan::refresh(const py::dict& local_gradients) {
  if (state_has_moved()) return py::none();
  held_gradients_.clear();
  py::list unfit;
  const bool has_local = PyDict_Size(local_gradients.ptr()) > 0;
  for (size_t i = 0; i < members_.size(); ++i) {
    const Member& member = members_[i];
    TensorEntry& entry = entries_[i];
    if (data_of(member.target) != entry.y) return py::none();
    const py::object gradient = gradient_of(member.param);
    if (gradient.is_none()) return py::none();
    if (!read_gradient(gradient.ptr(), member, entry.gradient)) unfit.append(py::make_tuple(i, false));
    entry.local = nullptr;
    if (!has_local) continue;
    PyObject* local = PyDict_GetItemWithError(local_gradients.ptr(), member.param);
    if (PyErr_Occurred()) throw py::error_already_set();
    if (local && !read_gradient(local, member, entry.local)) unfit.append(py::make_tuple(i, true));
  }
  return unfit;
}

void Plan::set_gradient(size_t i, bool is_local, py::object gradient) {
  const void*& pointer = is_local ? entries_.at(i).local : entries_.at(i).gradient;
  if (!read_gradient(gradient.ptr(), members_[i], pointer))
    reject("a gradient must have the layout of its parameter and the dtype of its bucket", i);
  held_gradients_.push_back(std::move(gradient));
}

void Plan::advance_steps(bool keep) {
  for (size_t i = 0; i < members_.size(); ++i) {
    const Member& m = members_[i];
    const double next = 1 + (m.step_is_double ? *static_cast<double*>(m.step) : *static_cast<float*>(m.step));
    entries_[i].step = next;
    if (!keep) continue;
    if (m.step_is_double)
      *static_cast<double*>(m.step) = next;
    else
      *static_cast<float*>(m.step) = static_cast<float>(next);
  }
}

size_t Plan::set_rows(NoiseScale scale) {
  size_t rows = 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    TensorEntry& entry = entries_[i];
    const Member& member = members_[i];
    const int64_t* dims = dims_.data() + member.dims;
    const bool by_row = scale == NoiseScale::filter && member.numel > 0 && member.ndim >= 2 && dims[0] > 1;
    entry.rows = by_row ? dims[0] : 1;
    entry.row_stride = by_row ? dims[member.ndim] * (complex_ ? 2 : 1) : entry.numel;
    rows += static_cast<size_t>(entry.rows);
  }
  return rows;
}

RuleKernels Plan::rule_kernels() const {
  return cpu::selected_kernels().rule(rule_.c_str(), buffers(), formats());
}

void Plan::lay_out_sums(bool with_trust, bool with_rows, NoiseScale scale) {
  if (!with_trust && !with_rows && sums_.empty()) return;
  const size_t of_trust = with_trust ? 2 * entries_.size() : 0;
  const size_t rows = set_rows(scale);
  sums_.assign(of_trust + (with_rows ? rows : 0), 0.0);
  double* next = sums_.data() + of_trust;
  for (size_t i = 0; i < entries_.size(); ++i) {
    entries_[i].rms = with_rows && has_rows(i, scale) ? next : nullptr;
    next += with_rows ? entries_[i].rows : 0;
  }
}

void Plan::measure(const StepConfig& config, int threads) {
  const RuleKernels rule = rule_kernels();
  const bool by_rows = config.noise_scale == NoiseScale::tensor || config.noise_scale == NoiseScale::filter;
  const bool with_rows = config.phase == Phase::update && config.noise != Noise::none && by_rows;
  lay_out_sums(rule.norm != nullptr, with_rows, config.noise_scale);
  if (sums_.empty()) return;
  if (rule.norm) {
    for (TensorEntry& t : entries_) t.trust = 1;  // what the norms are taken with
    cpu::trust_square_sums(rule.norm, config, entries_, chunks_, threads, sums_.data());
  }
  if (with_rows)
    cpu::row_square_sums(cpu::selected_kernels().square_sum(base_dtype()), bytes_of(base_dtype()), entries_, chunks_,
                         threads, sums_);
}

void Plan::use_sums(const StepConfig& config) {
  if (sums_.empty()) return;
  const RuleKernels rule = rule_kernels();
  for (size_t i = 0; i < entries_.size(); ++i) {
    TensorEntry& t = entries_[i];
    if (rule.norm) t.trust = rule.trust(config, std::sqrt(sums_[i]), std::sqrt(sums_[entries_.size() + i]));
    if (!t.rms) continue;
    double* rows = sums_.data() + (t.rms - sums_.data());
    const double numel = config.noise_scale == NoiseScale::tensor ? members_[i].numel : members_[i].row_numel;
    for (int64_t row = 0; row < t.rows; ++row) rows[row] = std::sqrt(rows[row] / numel);
  }
}

py::memoryview Plan::square_sums(const py::dict& group, bool correct, double grad_scale, double clip, int threads) {
  const StepConfig config = configured(group, correct, grad_scale, clip);
  {
    const py::gil_scoped_release release;
    advance_steps(false);
    measure(config, cpu::useful_threads(numel_, threads));
  }
  return py::memoryview::from_memory(sums_.data(), static_cast<py::ssize_t>(sums_.size() * sizeof(double)));
}

double Plan::gradient_square_sum(int threads) const {
  const DType dtype = gradient_dtype();
  threads = cpu::useful_threads(numel_, threads);
  const py::gil_scoped_release release;
  double sum = 0;
  for (double of_tensor : cpu::gradient_square_sums(cpu::selected_kernels().square_sum(dtype), bytes_of(dtype),
                                                    entries_, chunks_, threads))
    sum += of_tensor;
  return sum;
}

StepConfig Plan::configured(const py::dict& group, bool correct, double grad_scale, double clip) const {
  StepConfig config = read_group_options(group);
  config.phase = correct ? Phase::update : Phase::extrapolate;
  config.grad_scale = grad_scale;
  config.clip = clip;
  return config;
}

void Plan::run(const py::dict& group, uint64_t key, bool correct, double grad_scale, double clip, bool measured,
               int threads) {
  StepConfig config = configured(group, correct, grad_scale, clip);
  config.key = key;
  threads = cpu::useful_threads(numel_, threads);
  {
    const py::gil_scoped_release release;
    advance_steps(correct);
    if (!measured) measure(config, threads);
    use_sums(config);
    const bool streaming = numel_ * static_cast<int64_t>(bytes_of(dtype_)) >= cpu::kStreamingBytes;
    cpu::step(rule_kernels().step, config, entries_, chunks_, streaming, threads);
  }
  held_gradients_.clear();
}

}  // namespace extrap
