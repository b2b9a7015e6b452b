// A plan whose steps run on a CUDA device, or by the same code emulated on the host.
#pragma once

#include "cuda/catalog.h"
#include "cuda/table_builder.h"
#include "plan.h"

namespace extrap {

class DevicePlan : public Plan {
 public:
  // As Plan; emulated: CPU tensors, stepped by the device's code on the host. Throws std::runtime_error where this
  // build has no CUDA and `emulated` is false.
  DevicePlan(std::string rule, py::list params, py::list targets, py::list states, py::tuple state_names,
             const std::vector<uint32_t>& indices, bool gradient_like_param, const std::vector<Shard>& shards,
             bool emulated);

  // Scratch memory that steps under these options need: float64 and int32 elements, of which the latter are 0 at first.
  std::pair<size_t, size_t> scratch_sizes(const py::dict& group);
  void use_scratch(uintptr_t doubles, uintptr_t counters);

  // Of sharded tensors, between measure() and step(): which of the doubles are sums that other parts are added to, for
  // the norms and for the rms; and how many elements each of the latter is the sum of, in the whole tensors.
  std::pair<size_t, size_t> norm_sums() const;
  std::pair<size_t, size_t> row_sums(const py::dict& group) const;
  std::vector<double> row_numels(const py::dict& group) const;

  // What a step under these options needs to know of x and the gradients: norms and rms. Then the step itself.
  // grad_scale, clip: numbers, or tensors of one element; found_inf: a tensor of one element, or None.
  void measure(const py::dict& group, const py::object& grad_scale, const py::object& clip, bool correct,
               uintptr_t stream);
  void step(const py::dict& group, uint64_t key, bool correct, const py::object& grad_scale, const py::object& clip,
            const py::object& found_inf, uintptr_t stream);

  // Adds the squares of the gradients as they are to a float64 number on the device.
  void add_gradient_square_sum(uintptr_t total, uintptr_t stream);

 private:
  cuda::LaunchHeader header(const py::dict& group, const py::object& grad_scale, const py::object& clip, bool correct);
  cuda::DeviceScalar scalar(const py::handle& value) const;
  bool has_large_tensors() const;
  bool has_local_gradients() const;
  int64_t segments(size_t i) const;
  uint64_t column_value(cuda::Column column, size_t i) const;
  void set_slots(const StepConfig& config);
  void run(const cuda::LaunchHeader& header, const cuda::Columns& columns, bool by_chunk, cuda::Launch launch,
           uintptr_t stream, size_t sums_per_tensor);

  [[maybe_unused]] bool emulated_;  // read only in a build with CUDA
  bool sharded_;
  cuda::RuleLaunches rule_launches_;
  cuda::SumLaunches base_sums_, gradient_sums_;
  cuda::Workspace workspace_{};
  std::vector<uint32_t> slots_;  // where each tensor's rows begin
  size_t total_rows_ = 0;
};

// Launches of a step without noise on tensors of these sizes, under a rule with so many buffers.
size_t cuda_launches(int buffers, const std::vector<int64_t>& numels);

}  // namespace extrap
