#include "cpu/plan.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "bucket_formats.h"
#include "cpu/driver.h"
#include "step_row.h"
#include "tensor_dtypes.h"

namespace extrap {
namespace {

constexpr int64_t kChunkSize = 16384;  // elements; a multiple of every kernel's block

bool needs_norms(const RuleKernels& rule, const StepConfig& config) { return rule.norm && config.layer_adaptation; }

bool needs_rows(const StepConfig& config) { return config.phase == Phase::update && scaled_by_rms(config); }

}  // namespace

CpuPlan::CpuPlan(BucketContents contents, std::string rule)
    : rule_(std::move(rule)),
      bucket_(std::move(contents), /*step_on_device=*/false),
      formats_(formats_of(rule_, bucket_)) {
  if (bucket_.device_type() != kCpuDevice) throw std::invalid_argument("backend 'cpu' takes tensors on the CPU");
  if (!kernels().step) throw_no_kernels(rule_, bucket_);
  for (size_t i = 0; i < bucket_.size(); ++i) {
    const int64_t numel = bucket_.entries()[i].numel;
    for (int64_t begin = 0; begin < numel; begin += kChunkSize)
      chunks_.push_back({static_cast<int32_t>(i), begin, std::min(kChunkSize, numel - begin)});
  }
}

RuleKernels CpuPlan::kernels() const {
  return cpu::selected_kernels().rule(rule_.c_str(), bucket_.buffers(), formats_);
}

int CpuPlan::useful(int threads) const { return cpu::useful_threads(bucket_.active_numel(), threads); }

void CpuPlan::lay_out_sums(bool with_trust, bool with_rows, NoiseScale scale) {
  if (!with_trust && !with_rows && sums_->values.empty()) return;
  std::vector<TensorEntry>& entries = bucket_.entries();
  const size_t of_trust = with_trust ? 2 * entries.size() : 0;
  const size_t rows = bucket_.set_rows(scale);
  if (sums_.use_count() > 1) sums_ = std::make_shared<Sums>();  // Python has kept a view of the old ones
  sums_->values.assign(of_trust + (with_rows ? rows : 0), 0.0);
  double* next = sums_->values.data() + of_trust;
  for (size_t i = 0; i < entries.size(); ++i) {
    entries[i].rms = with_rows && entries[i].gradient && bucket_.has_rows(i, scale) ? next : nullptr;
    next += with_rows ? entries[i].rows : 0;
  }
}

void CpuPlan::measure(const RuleKernels& rule, const StepConfig& config, int threads) {
  const bool with_rows = needs_rows(config);
  lay_out_sums(needs_norms(rule, config), with_rows, config.noise_scale);
  std::vector<TensorEntry>& entries = bucket_.entries();
  std::vector<double>& sums = sums_->values;
  for (TensorEntry& t : entries) t.trust = 1;  // what the norms are taken with
  if (needs_norms(rule, config)) cpu::trust_square_sums(rule.norm, config, entries, chunks_, threads, sums.data());
  if (with_rows)
    cpu::row_square_sums(cpu::selected_kernels().base_square_sum(formats_.base), bytes_of(formats_.base), entries,
                         chunks_, threads, sums);
}

void CpuPlan::use_sums(const RuleKernels& rule, const StepConfig& config) {
  std::vector<double>& sums = sums_->values;
  if (sums.empty()) return;
  std::vector<TensorEntry>& entries = bucket_.entries();
  for (const uint32_t i : bucket_.active()) {
    TensorEntry& t = entries[i];
    if (needs_norms(rule, config))
      t.trust = rule.trust(config, std::sqrt(sums[i]), std::sqrt(sums[entries.size() + i]));
    if (!t.rms) continue;
    double* rows = sums.data() + (t.rms - sums.data());
    const double numel = config.noise_scale == NoiseScale::tensor ? bucket_.numel(i) : bucket_.row_numel(i);
    for (int64_t row = 0; row < t.rows; ++row) rows[row] = std::sqrt(rows[row] / numel);
  }
}

py::memoryview CpuPlan::square_sums(const py::bytes& row, int threads) {
  const BoundUse use(bucket_);
  const StepConfig config = read_row(row);
  {
    const py::gil_scoped_release released;
    bucket_.advance_steps(/*keep=*/false);
    measure(kernels(), config, useful(threads));
  }
  return py::memoryview(py::cast(sums_));
}

double CpuPlan::gradient_square_sum(int threads) {
  const BoundUse use(bucket_);
  const py::gil_scoped_release released;
  double sum = 0;
  for (double of_tensor :
       cpu::gradient_square_sums(cpu::selected_kernels().square_sum(formats_.gradient), bytes_of(formats_.gradient),
                                 bucket_.entries(), chunks_, useful(threads)))
    sum += of_tensor;
  return sum;
}

double CpuPlan::direction_square_sum(const py::bytes& row, int threads) {
  const BoundUse use(bucket_);
  const StepConfig config = read_row(row);
  const py::gil_scoped_release released;
  bucket_.advance_steps(/*keep=*/false);
  return cpu::direction_square_sum(kernels().direction, config, bucket_.entries(), chunks_, useful(threads));
}

void CpuPlan::run(const py::bytes& row, bool measured, int threads) {
  const BoundUse use(bucket_, BoundUse::Then::release);
  const StepConfig config = read_row(row);
  const py::gil_scoped_release released;
  const RuleKernels rule = kernels();
  threads = useful(threads);
  bucket_.advance_steps(/*keep=*/config.phase == Phase::update);
  bucket_.exchange_inner_lrs(inner_lr(config));
  if (!measured) measure(rule, config, threads);
  use_sums(rule, config);
  const bool streaming =
      bucket_.active_numel() * static_cast<int64_t>(bytes_of(formats_.param)) >= cpu::kStreamingBytes;
  cpu::step(rule.step, config, bucket_.entries(), chunks_, streaming, threads);
}

}  // namespace extrap
