#include "cuda/plan.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <utility>

#include "bucket_formats.h"
#include "cuda/registry.h"
#include "step_row.h"
#include "testing/emulation.h"

namespace extrap {
namespace {

using namespace cuda;

int64_t parts(int64_t count, int64_t size) { return (count + size - 1) / size; }

int64_t chunks(int64_t numel) { return parts(numel, kChunk); }

#if !defined(EXTRAP_HAVE_CUDA)
[[noreturn]] void no_cuda() {
  throw std::runtime_error(
      "this build has no CUDA kernels: reinstall extrap_kernels with nvcc on PATH (EXTRAP_CUDA=on makes the build fail "
      "where it is missing)");
}
#endif

RuleLaunches find_rule_launches(bool emulated, const std::string& rule, int buffers, const TensorFormats& formats) {
  if (emulated) return emulated_rule(rule.c_str(), buffers, formats);
#if defined(EXTRAP_HAVE_CUDA)
  return device_rule(rule.c_str(), buffers, formats);
#else
  no_cuda();
#endif
}

SumLaunches find_sum_launches(bool emulated, DType format) {
  if (emulated) return emulated_sums(format);
#if defined(EXTRAP_HAVE_CUDA)
  return device_sums(format);
#else
  no_cuda();
#endif
}

bool is_large(int64_t numel) { return numel > int64_t{0xffffffff}; }

Columns with_numel(Columns columns, bool large) {
  columns.add(large ? kNumel64 : kNumel);
  return columns;
}

Columns with_buffers(Columns columns, int buffers, bool in_blocks) {
  for (int k = 0; k < buffers; ++k) {
    columns.add(static_cast<Column>(kBuffer0 + k));
    if (in_blocks) columns.add(static_cast<Column>(kExponents0 + k));
  }
  return columns;
}

Columns with_rows(Columns columns, const StepConfig& config) {
  columns.add(kSlot);
  if (config.noise_scale != NoiseScale::filter) return columns;
  columns.add(kRows);
  columns.add(kRowStride);
  return columns;
}

// split: of the base iterate.
Columns with_base(Columns columns, bool split) {
  columns.add(kBase);
  if (split) columns.add(kBaseLow);
  return columns;
}

// rounds: by random bits, which depend on the position as noise does.
Columns step_columns(const StepConfig& config, Columns columns, bool rounds, bool local, bool sharded) {
  for (const Column column : {kY, kGradient, kStep, kFirst}) columns.add(column);
  if (local) columns.add(kLocal);
  if (config.noise == Noise::none && !rounds) return columns;
  columns.add(kIndex);
  if (sharded)
    for (const Column column : {kOffset, kExtent, kStride}) columns.add(column);
  return scaled_by_rms(config) ? with_rows(columns, config) : columns;
}

}  // namespace

CudaPlan::CudaPlan(BucketContents contents, std::string rule, bool emulated)
    : rule_(std::move(rule)),
      bucket_(std::move(contents), /*step_on_device=*/true),
      formats_(formats_of(rule_, bucket_)),
      rule_launches_(find_rule_launches(emulated, rule_, bucket_.buffers(), formats_)),
      base_sums_(find_sum_launches(emulated, formats_.base)),
      gradient_sums_(find_sum_launches(emulated, formats_.gradient)),
      slots_(bucket_.size()) {
  if (bucket_.device_type() != (emulated ? kCpuDevice : kCudaDevice))
    throw std::invalid_argument(emulated ? "emulation takes CPU tensors" : "the CUDA kernels take CUDA tensors");
  if (!rule_launches_.step) throw_no_kernels(rule_, bucket_);
  if (bucket_.buffers() > 0 && !bucket_.in_blocks())
    momentum_sums_ = find_sum_launches(emulated, formats_.signed_buffer);
}

// --- Scalars ---------------------------------------------------------------------------------------------------------

DeviceScalar CudaPlan::device_scalar(const std::string& name, const py::object& tensor) const {
  TensorView view;
  if (!read_tensor(tensor.ptr(), view) || view.numel() != 1 || view.complex ||
      view.device_type != bucket_.device_type() || view.device_index != bucket_.device_index() ||
      (view.dtype != DType::float32 && view.dtype != DType::float64))
    throw std::invalid_argument(name +
                                " must be a tensor of one float32 or float64 element on the device of the "
                                "parameters, or a number");
  DeviceScalar scalar;
  scalar.pointer = view.data;
  scalar.dtype = view.dtype;
  return scalar;
}

LaunchHeader CudaPlan::header(const py::bytes& row, const py::dict& device_scalars) const {
  LaunchHeader h{};
  h.config = read_row(row);
  const auto scalar = [&](const char* name, double value) {
    if (device_scalars.contains(name)) return device_scalar(name, device_scalars[name]);
    DeviceScalar of_host;
    of_host.value = value;
    return of_host;
  };
  h.lr = scalar("lr", h.config.lr);
  h.extrap_lr = scalar("extrap_lr", h.config.extrap_lr);
  h.grad_scale = scalar("grad_scale", h.config.grad_scale);
  h.clip = scalar("clip", h.config.clip);
  h.workspace = workspace_;
  h.sums_only = bucket_.is_sharded();
  return h;
}

// --- Scratch memory --------------------------------------------------------------------------------------------------

void CudaPlan::set_slots(NoiseScale scale) {
  total_rows_ = bucket_.set_rows(scale);
  uint32_t slot = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    slots_[i] = bucket_.has_rows(i, scale) ? slot : kNoSlot;
    slot += static_cast<uint32_t>(bucket_.entries()[i].rows);
  }
}

int64_t CudaPlan::segments(size_t i) const {
  const TensorEntry& t = bucket_.entries()[i];
  const int64_t length = t.numel / t.rows;
  return parts(t.rows, rows_at_once(t.rows, length)) * parts(length, kSegment);
}

std::pair<size_t, size_t> CudaPlan::scratch_sizes(const py::bytes& row) {
  const BoundUse use(bucket_);
  set_slots(read_row(row).noise_scale);
  int64_t partials = 0;
  for (size_t i = 0; i < bucket_.size(); ++i)
    partials += std::max(segments(i), parts(bucket_.entries()[i].numel, kSegment));
  const size_t counters = std::max(total_rows_, bucket_.size());
  return {2 * bucket_.size() + total_rows_ + 2 * static_cast<size_t>(partials), counters + 1};
}

void CudaPlan::use_scratch(uintptr_t doubles, uintptr_t counters) {
  workspace_.norm_sums = reinterpret_cast<double*>(doubles);
  workspace_.row_rms = workspace_.norm_sums + 2 * bucket_.size();
  workspace_.partial_sums = workspace_.row_rms + total_rows_;
  workspace_.block_arrivals = reinterpret_cast<int32_t*>(counters);
  workspace_.row_arrivals = workspace_.block_arrivals + 1;
}

bool CudaPlan::takes_norms(const StepConfig& config) const { return rule_launches_.norms && config.layer_adaptation; }

std::pair<size_t, size_t> CudaPlan::norm_sums(const py::bytes& row) const {
  return {0, takes_norms(read_row(row)) ? 2 * bucket_.size() : 0};
}

std::pair<size_t, size_t> CudaPlan::row_sums(const py::bytes& row) const {
  const size_t first = 2 * bucket_.size();
  return {first, scaled_by_rms(read_row(row)) ? first + total_rows_ : first};
}

std::vector<double> CudaPlan::row_numels(const py::bytes& row) const {
  const bool by_row = read_row(row).noise_scale == NoiseScale::filter;
  std::vector<double> numels;
  for (size_t i = 0; i < bucket_.size(); ++i)
    numels.insert(numels.end(), static_cast<size_t>(bucket_.entries()[i].rows),
                  by_row ? bucket_.row_numel(i) : bucket_.numel(i));
  return numels;
}

// --- Launches --------------------------------------------------------------------------------------------------------

bool CudaPlan::has_large_tensors() const {
  const auto& entries = bucket_.entries();
  return std::any_of(entries.begin(), entries.end(), [](const TensorEntry& t) { return is_large(t.numel); });
}

bool CudaPlan::has_local_gradients() const {
  const auto& entries = bucket_.entries();
  return std::any_of(entries.begin(), entries.end(), [](const TensorEntry& t) { return t.local != nullptr; });
}

uint64_t CudaPlan::cell(Column column, size_t i) const {
  const TensorEntry& t = bucket_.entries()[i];
  switch (column) {
    case kY:
      return reinterpret_cast<uint64_t>(t.y);
    case kBase:
      return reinterpret_cast<uint64_t>(t.base);
    case kBaseLow:
      return reinterpret_cast<uint64_t>(t.base_low);
    case kBuffer0:
      return reinterpret_cast<uint64_t>(t.buffers[0]);
    case kBuffer1:
      return reinterpret_cast<uint64_t>(t.buffers[1]);
    case kExponents0:
      return reinterpret_cast<uint64_t>(t.exponents[0]);
    case kExponents1:
      return reinterpret_cast<uint64_t>(t.exponents[1]);
    case kGradient:
      return reinterpret_cast<uint64_t>(t.gradient);
    case kLocal:
      return reinterpret_cast<uint64_t>(t.local);
    case kStep:
      return reinterpret_cast<uint64_t>(bucket_.step(i));
    case kInnerLr:
      return reinterpret_cast<uint64_t>(bucket_.inner_lr(i));
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

template <class Units, class Cell>
void CudaPlan::launch(const LaunchHeader& header, const Columns& columns, Launch kernel, uintptr_t stream,
                      const Units& units, const Cell& cell) const {
  const std::vector<uint32_t>& active = bucket_.active();
  const auto units_of = [&](size_t k) { return units(active[k]); };
  const auto cell_of = [&](Column column, size_t k) { return cell(column, active[k]); };
  const Target target{bucket_.device_index(), reinterpret_cast<void*>(stream)};
  const auto table = std::make_unique<LaunchTable>();
  for (const TensorRange range : cut_into_launches(columns, active.size(), units_of)) {
    static_cast<LaunchHeader&>(*table) = header;
    table->workspace.norm_sums += 2 * range.first;
    fill_table(*table, columns, range, cell_of, units_of);
    kernel(*table, target);
  }
}

template <class Units>
void CudaPlan::launch(const LaunchHeader& header, const Columns& columns, Launch kernel, uintptr_t stream,
                      const Units& units) const {
  launch(header, columns, kernel, stream, units, [&](Column column, size_t i) { return cell(column, i); });
}

// Of what RuleSource reads.
Columns CudaPlan::source_columns(const StepConfig& config) const {
  Columns columns = with_numel({kGradient, kStep, kFirst}, has_large_tensors());
  if (bucket_.has_base() && adopts(config)) columns.add(kY);
  return with_buffers(with_base(columns, bucket_.splits_base()), bucket_.buffers(), bucket_.in_blocks());
}

void CudaPlan::measure(const py::bytes& row, const py::dict& device_scalars, uintptr_t stream) {
  const BoundUse use(bucket_);
  const LaunchHeader h = header(row, device_scalars);
  if (takes_norms(h.config)) {
    launch(h, source_columns(h.config), rule_launches_.norms, stream,
           [&](size_t i) { return parts(bucket_.entries()[i].numel, kSegment); });
  }
  if (!scaled_by_rms(h.config)) return;
  const Columns of_base = with_base(with_numel({kFirst}, has_large_tensors()), bucket_.splits_base());
  const Columns columns = with_rows(of_base, h.config);
  launch(h, columns, base_sums_.rows, stream, [&](size_t i) { return slots_[i] == kNoSlot ? 0 : segments(i); });
}

void CudaPlan::step(const py::bytes& row, const py::dict& device_scalars, const py::object& found_inf,
                    uintptr_t stream) {
  const BoundUse use(bucket_, BoundUse::Then::release);
  LaunchHeader h = header(row, device_scalars);
  if (!found_inf.is_none()) h.found_inf = device_scalar("found_inf", found_inf);
  const Launch kernel = h.config.noise == Noise::none ? rule_launches_.step : rule_launches_.step_with_noise;
  const Columns of_base = with_base(with_numel({}, has_large_tensors()), bucket_.splits_base());
  const Columns of_tensors = with_buffers(of_base, bucket_.buffers(), bucket_.in_blocks());
  const bool rounds = bucket_.splits_base() || formats_.unsigned_buffer != bucket_.arithmetic();
  Columns columns = step_columns(h.config, of_tensors, rounds, has_local_gradients(), bucket_.is_sharded());
  if (bucket_.recovers_base()) columns.add(kInnerLr);
  launch(h, columns, kernel, stream, [&](size_t i) { return chunks(bucket_.entries()[i].numel); });
}

void CudaPlan::add_momentum_square_sum(const LaunchHeader& header, uintptr_t stream) const {
  launch(
      header, with_numel({kGradient, kFirst}, has_large_tensors()), momentum_sums_.total, stream,
      [&](size_t i) { return parts(bucket_.entries()[i].numel, kSegment); },
      [&](Column column, size_t i) { return cell(column == kGradient ? kBuffer0 : column, i); });
}

void CudaPlan::add_direction_square_sum(const py::bytes& row, const py::dict& device_scalars, uintptr_t total,
                                        uintptr_t stream) {
  const BoundUse use(bucket_);
  LaunchHeader h = header(row, device_scalars);
  h.total = reinterpret_cast<double*>(total);
  const bool as_it_is = h.config.extrap_scale == ExtrapolationScale::absolute && !bucket_.in_blocks();
  if (h.config.extrapolation == Extrapolation::momentum && as_it_is) return add_momentum_square_sum(h, stream);
  Columns columns = source_columns(h.config);
  if (has_local_gradients()) columns.add(kLocal);
  launch(h, columns, rule_launches_.direction, stream,
         [&](size_t i) { return parts(bucket_.entries()[i].numel, kSegment); });
}

void CudaPlan::add_gradient_square_sum(uintptr_t total, uintptr_t stream) {
  const BoundUse use(bucket_);
  LaunchHeader h{};
  h.workspace = workspace_;
  h.total = reinterpret_cast<double*>(total);
  launch(h, with_numel({kGradient, kFirst}, has_large_tensors()), gradient_sums_.total, stream,
         [&](size_t i) { return parts(bucket_.entries()[i].numel, kSegment); });
}

size_t cuda_launches(int buffers, const std::vector<int64_t>& numels) {
  bool large = false;
  for (const int64_t numel : numels) large |= is_large(numel);
  const Columns columns = step_columns(
      StepConfig(), with_buffers(with_base(with_numel({}, large), false), buffers, false), false, false, false);
  return cut_into_launches(columns, numels.size(), [&](size_t i) { return chunks(numels[i]); }).size();
}

}  // namespace extrap
