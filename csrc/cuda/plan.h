// Steps the tensors of a bucket on a CUDA device, or by the same code emulated on the host.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

#include "bucket.h"
#include "core/config.h"
#include "cuda/kernels.h"
#include "cuda/table_builder.h"

namespace extrap {

class CudaPlan {
 public:
  // emulated: CPU tensors, stepped by the device's code on the host. Throws std::invalid_argument if the tensors do not
  // fit each other or there are no kernels for them, std::runtime_error if this build has no CUDA and `emulated` is
  // false.
  CudaPlan(BucketContents contents, std::string rule, bool emulated);

  Bucket& bucket() { return bucket_; }

  // Scratch memory that a step with these scalars needs: float64 and int32 elements, of which the latter are 0 at
  // first. It must outlive the launches of the step.
  std::pair<size_t, size_t> scratch_sizes(const py::bytes& row);
  void use_scratch(uintptr_t doubles, uintptr_t counters);

  // Of sharded tensors, between measure() and step(): which of the doubles are sums that other parts are added to, for
  // the norms and for the rms; and how many elements each of the latter is the sum of, in the whole tensors.
  std::pair<size_t, size_t> norm_sums(const py::bytes& row) const;
  std::pair<size_t, size_t> row_sums(const py::bytes& row) const;
  std::vector<double> row_numels(const py::bytes& row) const;

  // What a step needs to know of x and the gradients: norms and rms. Then the step itself, after which the tensors are
  // released: the work goes on in the order of the stream, in which their memory will be used again.
  // device_scalars: tensors of one element for the scalars of `row` that only the device knows; found_inf: likewise, or
  // None.
  void measure(const py::bytes& row, const py::dict& device_scalars, uintptr_t stream);
  void step(const py::bytes& row, const py::dict& device_scalars, const py::object& found_inf, uintptr_t stream);

  // Adds the squares of what step() with these scalars will extrapolate along to a float64 number on the device; of a
  // rule with norms, of the momentum alone.
  void add_direction_square_sum(const py::bytes& row, const py::dict& device_scalars, uintptr_t total,
                                uintptr_t stream);

  // Adds the squares of the gradients as they are to a float64 number on the device.
  void add_gradient_square_sum(uintptr_t total, uintptr_t stream);

 private:
  cuda::LaunchHeader header(const py::bytes& row, const py::dict& device_scalars) const;
  cuda::DeviceScalar device_scalar(const std::string& name, const py::object& tensor) const;
  bool takes_norms(const StepConfig& config) const;
  bool has_large_tensors() const;
  bool has_local_gradients() const;
  int64_t segments(size_t i) const;
  uint64_t cell(cuda::Column column, size_t i) const;
  void set_slots(NoiseScale scale);

  // Launches over the active tensors, of which each has units(i) chunks or segments, and in each column the value
  // cell(column, i): that which is meant for it, or another one.
  template <class Units, class Cell>
  void launch(const cuda::LaunchHeader& header, const cuda::Columns& columns, cuda::Launch kernel, uintptr_t stream,
              const Units& units, const Cell& cell) const;
  template <class Units>
  void launch(const cuda::LaunchHeader& header, const cuda::Columns& columns, cuda::Launch kernel, uintptr_t stream,
              const Units& units) const;
  cuda::Columns source_columns(const StepConfig& config) const;
  void add_momentum_square_sum(const cuda::LaunchHeader& header, uintptr_t stream) const;

  std::string rule_;
  Bucket bucket_;
  TensorFormats formats_;
  cuda::RuleLaunches rule_launches_;
  cuda::SumLaunches base_sums_, gradient_sums_, momentum_sums_{};
  cuda::Workspace workspace_{};
  std::vector<uint32_t> slots_;  // where each tensor's rows begin
  size_t total_rows_ = 0;
};

// Launches of a step without noise on tensors of these sizes, under a rule with so many buffers.
size_t cuda_launches(int buffers, const std::vector<int64_t>& numels);

}  // namespace extrap
