#include "device_plan.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <utility>

#include "group_options.h"
#include "testing/emulation.h"

namespace extrap {
namespace {

using namespace cuda;

int64_t parts(int64_t count, int64_t size) { return (count + size - 1) / size; }

#if !defined(EXTRAP_HAVE_CUDA)
[[noreturn]] void no_cuda() {
  throw std::runtime_error(
      "this build has no CUDA kernels: reinstall extrap_kernels with nvcc on PATH (EXTRAP_CUDA=on makes the build fail "
      "where it is missing)");
}
#endif

bool is_large(int64_t numel) { return numel > int64_t{0xffffffff}; }

Columns with_numel(Columns columns, bool large) {
  columns.add(large ? kNumel64 : kNumel);
  return columns;
}

Columns with_buffers(Columns columns, int buffers) {
  for (int k = 0; k < buffers; ++k) columns.add(static_cast<Column>(kBuffer0 + k));
  return columns;
}

Columns step_columns(const StepConfig& config, int buffers, bool large, bool local, bool sharded) {
  Columns columns = with_buffers(with_numel({kY, kBase, kGradient, kStep, kFirst}, large), buffers);
  if (local) columns.add(kLocal);
  if (config.noise == Noise::none) return columns;
  columns.add(kIndex);
  if (sharded)
    for (const Column column : {kOffset, kExtent, kStride}) columns.add(column);
  if (scaled_by_rms(config)) columns.add(kSlot);
  if (scaled_by_rms(config) && config.noise_scale == NoiseScale::filter) {
    columns.add(kRows);
    columns.add(kRowStride);
  }
  return columns;
}

RuleLaunches find_rule_launches(bool emulated, const char* rule, int buffers, const TensorFormats& formats) {
  if (emulated) return emulated_rule(rule, buffers, formats);
#if defined(EXTRAP_HAVE_CUDA)
  return device_rule(rule, buffers, formats);
#else
  no_cuda();
#endif
}

SumLaunches find_sum_launches(bool emulated, DType dtype) {
  if (emulated) return emulated_sums(dtype);
#if defined(EXTRAP_HAVE_CUDA)
  return device_sums(dtype);
#else
  no_cuda();
#endif
}

}  // namespace

DevicePlan::DevicePlan(std::string rule, py::list params, py::list targets, py::list states, py::tuple state_names,
                       const std::vector<uint32_t>& indices, bool gradient_like_param, const std::vector<Shard>& shards,
                       bool emulated)
    : Plan(std::move(rule), std::move(params), std::move(targets), std::move(states), std::move(state_names), indices,
           gradient_like_param, shards, /*step_on_device=*/true),
      emulated_(emulated),
      sharded_(!shards.empty()),
      rule_launches_(find_rule_launches(emulated, rule_.c_str(), buffers(), formats())),
      base_sums_(find_sum_launches(emulated, base_dtype())),
      gradient_sums_(find_sum_launches(emulated, gradient_dtype())),
      slots_(members_.size()) {
  if (device_type_ != (emulated ? 1 : 2))
    throw std::invalid_argument(emulated ? "emulation takes CPU tensors" : "the CUDA kernels take CUDA tensors");
}

DeviceScalar DevicePlan::scalar(const py::handle& value) const {
  DeviceScalar scalar;
  TensorView view;
  const bool is_number = PyFloat_Check(value.ptr()) || PyLong_Check(value.ptr());
  if (!is_number && read_tensor(value.ptr(), view) && view.numel() == 1 && view.device_type == device_type_ &&
      view.device_index == device_index_ && !view.complex &&
      (view.dtype == DType::float32 || view.dtype == DType::float64)) {
    scalar.pointer = view.data;
    scalar.dtype = view.dtype;
  } else {
    scalar.value = PyFloat_AsDouble(value.ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
  }
  return scalar;
}

LaunchHeader DevicePlan::header(const py::dict& group, const py::object& grad_scale, const py::object& clip,
                                bool correct) {
  LaunchHeader h{};
  h.config = read_group_options(group, /*learning_rates=*/false);
  h.config.phase = correct ? Phase::update : Phase::extrapolate;
  h.lr = scalar(group["lr"]);
  const py::object extrap_lr = group["extrap_lr"];
  h.extrap_lr = extrap_lr.is_none() ? h.lr : scalar(extrap_lr);
  h.grad_scale = scalar(grad_scale);
  h.clip = scalar(clip);
  h.workspace = workspace_;
  h.sums_only = sharded_;
  return h;
}

void DevicePlan::set_slots(const StepConfig& config) {
  total_rows_ = set_rows(config.noise_scale);
  uint32_t slot = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    slots_[i] = has_rows(i, config.noise_scale) ? slot : kNoSlot;
    slot += static_cast<uint32_t>(entries_[i].rows);
  }
}

int64_t DevicePlan::segments(size_t i) const {
  const TensorEntry& t = entries_[i];
  return t.rows * parts(t.numel / t.rows, kSegment);
}

std::pair<size_t, size_t> DevicePlan::scratch_sizes(const py::dict& group) {
  set_slots(read_group_options(group, /*learning_rates=*/false));
  int64_t partials = 0;
  for (size_t i = 0; i < entries_.size(); ++i) partials += std::max(segments(i), parts(entries_[i].numel, kSegment));
  const size_t counters = std::max(total_rows_, entries_.size());
  return {2 * entries_.size() + total_rows_ + 2 * static_cast<size_t>(partials), counters + 1};
}

void DevicePlan::use_scratch(uintptr_t doubles, uintptr_t counters) {
  workspace_.norm_sums = reinterpret_cast<double*>(doubles);
  workspace_.row_rms = workspace_.norm_sums + 2 * entries_.size();
  workspace_.partial_sums = workspace_.row_rms + total_rows_;
  workspace_.block_arrivals = reinterpret_cast<int32_t*>(counters);
  workspace_.row_arrivals = workspace_.block_arrivals + 1;
}

std::pair<size_t, size_t> DevicePlan::norm_sums() const { return {0, rule_launches_.norms ? 2 * entries_.size() : 0}; }

std::pair<size_t, size_t> DevicePlan::row_sums(const py::dict& group) const {
  const size_t first = 2 * entries_.size();
  return {first, scaled_by_rms(read_group_options(group, /*learning_rates=*/false)) ? first + total_rows_ : first};
}

std::vector<double> DevicePlan::row_numels(const py::dict& group) const {
  const bool by_row = read_group_options(group, /*learning_rates=*/false).noise_scale == NoiseScale::filter;
  std::vector<double> numels;
  for (size_t i = 0; i < entries_.size(); ++i)
    numels.insert(numels.end(), static_cast<size_t>(entries_[i].rows),
                  by_row ? members_[i].row_numel : members_[i].numel);
  return numels;
}

bool DevicePlan::has_large_tensors() const {
  return std::any_of(entries_.begin(), entries_.end(), [](const TensorEntry& t) { return is_large(t.numel); });
}

bool DevicePlan::has_local_gradients() const {
  return std::any_of(entries_.begin(), entries_.end(), [](const TensorEntry& t) { return t.local != nullptr; });
}

uint64_t DevicePlan::column_value(Column column, size_t i) const {
  const TensorEntry& t = entries_[i];
  switch (column) {
    case kY:
      return reinterpret_cast<uint64_t>(t.y);
    case kBase:
      return reinterpret_cast<uint64_t>(t.base);
    case kBuffer0:
      return reinterpret_cast<uint64_t>(t.buffers[0]);
    case kBuffer1:
      return reinterpret_cast<uint64_t>(t.buffers[1]);
    case kGradient:
      return reinterpret_cast<uint64_t>(t.gradient);
    case kLocal:
      return reinterpret_cast<uint64_t>(t.local);
    case kStep:
      return reinterpret_cast<uint64_t>(members_[i].step);
    case kNumel64:
    case kNumel:
      return static_cast<uint64_t>(t.numel);
    case kRows:
      return static_cast<uint64_t>(t.rows);
    case kRowStride:
      return static_cast<uint64_t>(t.row_stride);
    case kOffset:
      return static_cast<uint64_t>(t.offset);
    case kExtent:
      return static_cast<uint64_t>(t.extent);
    case kStride:
      return static_cast<uint64_t>(t.stride);
    case kIndex:
      return t.index;
    case kSlot:
      return slots_[i];
    default:
      throw std::logic_error("a column has no value");
  }
}

void DevicePlan::run(const LaunchHeader& header, const Columns& columns, bool by_chunk, Launch launch, uintptr_t stream,
                     size_t sums_per_tensor) {
  const auto units = [&](size_t i) {
    if (by_chunk) return parts(entries_[i].numel, kChunk);
    if (!columns.has(kSlot)) return parts(entries_[i].numel, kSegment);
    return slots_[i] == kNoSlot ? 0 : segments(i);
  };
  const auto value = [&](Column column, size_t i) { return column_value(column, i); };
  const Target target{device_index_, reinterpret_cast<void*>(stream)};
  const auto table = std::make_unique<LaunchTable>();
  for (const TensorRange range : cut_into_launches(columns, entries_.size(), units)) {
    static_cast<LaunchHeader&>(*table) = header;
    table->workspace.norm_sums += sums_per_tensor * range.first;
    fill_table(*table, columns, range, value, units);
    launch(*table, target);
  }
}

void DevicePlan::measure(const py::dict& group, const py::object& grad_scale, const py::object& clip, bool correct,
                         uintptr_t stream) {
  const LaunchHeader h = header(group, grad_scale, clip, correct);
  if (rule_launches_.norms) {
    const Columns columns = with_numel({kBase, kGradient, kStep, kFirst}, has_large_tensors());
    run(h, with_buffers(columns, buffers()), false, rule_launches_.norms, stream, 2);
  }
  if (!scaled_by_rms(h.config)) return;
  Columns columns = with_numel({kBase, kFirst, kSlot}, has_large_tensors());
  if (h.config.noise_scale == NoiseScale::filter) {
    columns.add(kRows);
    columns.add(kRowStride);
  }
  run(h, columns, false, base_sums_.rows, stream, 0);
}

void DevicePlan::step(const py::dict& group, uint64_t key, bool correct, const py::object& grad_scale,
                      const py::object& clip, const py::object& found_inf, uintptr_t stream) {
  LaunchHeader h = header(group, grad_scale, clip, correct);
  h.config.key = key;
  if (!found_inf.is_none()) h.found_inf = scalar(found_inf);
  const Launch launch = h.config.noise == Noise::none ? rule_launches_.step : rule_launches_.step_with_noise;
  const Columns columns = step_columns(h.config, buffers(), has_large_tensors(), has_local_gradients(), sharded_);
  run(h, columns, true, launch, stream, 2);
  held_gradients_.clear();
}

void DevicePlan::add_gradient_square_sum(uintptr_t total, uintptr_t stream) {
  LaunchHeader h{};
  h.workspace = workspace_;
  h.total = reinterpret_cast<double*>(total);
  run(h, with_numel({kGradient, kFirst}, has_large_tensors()), false, gradient_sums_.total, stream, 0);
}

size_t cuda_launches(int buffers, const std::vector<int64_t>& numels) {
  bool large = false;
  for (const int64_t numel : numels) large |= is_large(numel);
  const auto units = [&](size_t i) { return parts(numels[i], kChunk); };
  return cut_into_launches(step_columns(StepConfig(), buffers, large, false, false), numels.size(), units).size();
}

}  // namespace extrap
