// Steps the tensors of a bucket on the CPU, chunk by chunk on several threads.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "bucket.h"
#include "core/config.h"
#include "core/table.h"
#include "cpu/kernels.h"

namespace extrap {

// Doubles that Python may keep a view of.
struct Sums {
  std::vector<double> values;
};

class CpuPlan {
 public:
  // Throws std::invalid_argument if the tensors do not fit each other, or if there are no kernels for them.
  CpuPlan(BucketContents contents, std::string rule);

  Bucket& bucket() { return bucket_; }

  // One step of the bound tensors, which are released then. `measured`: square_sums() was called for this step.
  void run(const py::bytes& row, bool measured, int threads);

  // The doubles that the next run() will make norms of: for a rule that needs norms, the sum of squares of each x, then
  // of each gradient or update; then, for a noise scale that needs them, of each row of each x. Whoever holds parts of
  // tensors adds what the other parts have.
  py::memoryview square_sums(const py::bytes& row, int threads);

  // Of what run() with these scalars will extrapolate along; of a rule with norms, of the momentum alone.
  double direction_square_sum(const py::bytes& row, int threads);

  // Of the bound gradients as they are: neither unscaled nor clipped.
  double gradient_square_sum(int threads);

 private:
  RuleKernels kernels() const;
  int useful(int threads) const;
  void lay_out_sums(bool with_trust, bool with_rows, NoiseScale scale);
  void measure(const RuleKernels& rule, const StepConfig& config, int threads);
  void use_sums(const RuleKernels& rule, const StepConfig& config);

  std::string rule_;
  Bucket bucket_;
  TensorFormats formats_;
  std::vector<Chunk> chunks_;
  std::shared_ptr<Sums> sums_ = std::make_shared<Sums>();  // see square_sums(); in a step the rows hold their rms
};

}  // namespace extrap
