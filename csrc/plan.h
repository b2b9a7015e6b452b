// The tensors of one bucket (one rule, device and dtype combination), validated once and stepped many times.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "core/config.h"
#include "core/table.h"
#include "cpu/kernels.h"
#include "tensor_view.h"

namespace extrap {

namespace py = pybind11;

// Where the part of a tensor that is stepped here lies in the whole, counted in real numbers; see TensorEntry.
struct Shard {
  int64_t offset, run, pitch;
  int64_t numel, rows;  // of the whole tensor; rows: its size along dim 0
};

class Plan {
 public:
  // All lists are of the same length, one entry for each tensor:
  // params: whose `grad` is read; targets: dense tensors that y is written to, mostly the parameters themselves;
  // states: dicts with `step`, `base` and the buffers named by `state_names`; indices: positions in the optimizer.
  // gradient_like_param: gradients have the dtype of the parameters, else that of the base iterate.
  // shards: empty where the tensors are whole;
  // step_on_device: `step` is where the parameters are, else in the host's memory.
  // Throws std::invalid_argument where tensors do not fit each other.
  Plan(std::string rule, py::list params, py::list targets, py::list states, py::tuple state_names,
       const std::vector<uint32_t>& indices, bool gradient_like_param, const std::vector<Shard>& shards,
       bool step_on_device = false);

  // Takes in the gradients of this step. The state must consist of the same objects as when the plan was made. None if
  // the plan no longer fits the parameters and their state; otherwise a list of (i, is_local) for the gradients that
  // set_gradient() must supply in the right layout and dtype.
  py::object refresh(const py::dict& local_gradients);
  void set_gradient(size_t i, bool is_local, py::object gradient);

  // One step of all tensors under the options of a param group. `measured`: square_sums() was called for this step.
  void run(const py::dict& group, uint64_t key, bool correct, double grad_scale, double clip, bool measured,
           int threads);

  // The doubles that the next run() will make norms of: for a rule that needs norms, the sum of squares of each x, then
  // of each gradient or update; then, for a noise scale that needs them, of each row of each x. Whoever holds parts of
  // tensors adds what the other parts have.
  py::memoryview square_sums(const py::dict& group, bool correct, double grad_scale, double clip, int threads);

  // Of the gradients as they are: neither unscaled nor clipped.
  double gradient_square_sum(int threads) const;

 protected:
  struct Member {
    PyObject *param, *target, *state;  // borrowed: the lists below hold them
    void* step;
    bool step_is_double;
    int32_t ndim;
    size_t dims;              // where its sizes and then its strides begin in dims_
    double numel, row_numel;  // of the whole tensor
  };

  int buffers() const { return static_cast<int>(state_names_.size()); }

  // What the rule's arithmetic is done in, and how complex elements count.
  DType base_dtype() const { return dtype_ == DType::float64 ? DType::float64 : DType::float32; }
  DType gradient_dtype() const { return gradient_like_param_ ? dtype_ : base_dtype(); }

  TensorFormats formats() const {
    return {dtype_, gradient_dtype(), base_dtype(), base_dtype(), base_dtype()};
  }

  // Sets the rows of each tensor for a noise scale; returns how many there are in all. `has_rows` of a tensor without
  // noise is false.
  size_t set_rows(NoiseScale scale);
  bool has_rows(size_t i, NoiseScale scale) const {
    return entries_[i].numel > 0 && (scale == NoiseScale::tensor || members_[i].ndim >= 2);
  }

  void add(size_t i, uint32_t index, const Shard* shard);
  void* state_pointer(PyObject* state, const std::string& name, const TensorView& target);
  bool state_has_moved() const;
  bool read_gradient(PyObject* gradient, const Member& member, const void*& pointer) const;
  void advance_steps(bool keep);
  StepConfig configured(const py::dict& group, bool correct, double grad_scale, double clip) const;
  RuleKernels rule_kernels() const;
  void lay_out_sums(bool with_trust, bool with_rows, NoiseScale scale);
  void measure(const StepConfig& config, int threads);
  void use_sums(const StepConfig& config);

  std::string rule_;
  py::list params_, targets_, states_;
  py::tuple state_names_;
  bool gradient_like_param_, step_on_device_;
  int32_t device_type_ = 0, device_index_ = 0;  // as in DLPack
  DType dtype_ = DType::float32;
  bool complex_ = false;
  std::vector<Member> members_;
  std::vector<TensorEntry> entries_;
  std::vector<Chunk> chunks_;
  std::vector<double> sums_;  // see square_sums(); during a step the rows hold their root mean squares
  std::vector<py::object> held_storage_;
  std::vector<py::object> held_gradients_;  // copies made for this step
  std::vector<int64_t> dims_;
  int64_t numel_ = 0;  // of all tensors, in real numbers
};

}  // namespace extrap
