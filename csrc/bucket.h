// The tensors of one bucket: parameters of one device, dtype and rule, with their gradients and state. Nothing that
// points into a tensor outlives a step: bind() reads them all and holds them, release() lets go of them.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/table.h"
#include "tensor_view.h"

namespace extrap {

namespace py = pybind11;

// Where the part of a tensor that is stepped here lies in the whole, counted in real numbers; see TensorEntry.
struct Shard {
  int64_t offset, extent, stride;
  int64_t numel, rows;  // of the whole tensor; rows: its size along dim 0
};

// What a bucket is made of. All lists have the same length, but `shards`, which is empty where the tensors are whole.
struct BucketContents {
  py::list params;         // whose `grad` is read
  py::list dense_params;   // dense tensors that y is written to, mostly the parameters themselves
  bool has_base;           // false: x is what the parameter holds, or recovered from it
  std::string base_dtype;  // of `base` in the state; bfloat16: it is split, and the low bytes are `base_low`
  bool recovers_base;      // x is recovered from the parameter and the first buffer, by `inner_lr` in the state
  py::tuple buffers;       // keys in the state dicts
  std::vector<std::string> buffer_formats;
  std::string grad_dtype;  // in which gradients are read
  std::vector<uint32_t> indices;
  std::vector<std::string> names;  // what error messages call the parameters
  std::vector<Shard> shards;
};

class Bucket {
 public:
  // step_on_device: `step` is where the parameters are, else in the host's memory.
  // Throws std::invalid_argument if a parameter cannot be stepped or differs from the first in device or dtype.
  Bucket(BucketContents contents, bool step_on_device);

  // Reads and holds the tensors of this step. None if a parameter no longer is as it was when the bucket was made;
  // otherwise a list of (entry, what) for all that is still needed. "state": a tensor is missing, or has another dtype,
  // device or strides than it must have; once that is repaired, bind() must be called again. "gradient" and "local":
  // set_gradient() must be called with a copy in the right layout and dtype. Entries without a gradient are left out of
  // the step.
  // Throws std::invalid_argument for state that cannot be repaired and for tensors without memory.
  // states: of all parameters of the optimizer, a dict or None for each; an entry's is found by its index.
  py::object bind(const py::list& states, const py::dict& local_gradients);
  void set_gradient(size_t entry, bool is_local, const py::object& gradient);
  // The gradient that bind() found.
  py::object gradient(size_t entry, bool is_local) const;
  void release();

  // Of what is bound. Calls of the functions above must not meet those that work on it: see BucketUse.
  std::vector<TensorEntry>& entries() { return entries_; }
  const std::vector<TensorEntry>& entries() const { return entries_; }
  const std::vector<uint32_t>& active() const { return active_; }  // entries with a gradient, in their order
  int64_t active_numel() const { return active_numel_; }           // in real numbers

  size_t size() const { return entries_.size(); }
  bool has_base() const { return has_base_; }
  bool recovers_base() const { return recovers_base_; }
  DType base_format() const { return base_format_; }
  bool splits_base() const { return has_base_ && base_format_ == DType::bfloat16; }
  // Whether the numbers of buffers share exponents, in blocks.
  bool in_blocks() const { return !buffer_formats_.empty() && buffer_formats_[0] == DType::uint8; }
  int buffers() const { return static_cast<int>(buffer_formats_.size()); }
  DType param_format() const { return dtype_; }
  DType arithmetic() const { return dtype_ == DType::float64 ? DType::float64 : DType::float32; }
  DType gradient_format() const { return gradient_format_; }
  const std::vector<DType>& buffer_formats() const { return buffer_formats_; }
  int32_t device_type() const { return device_type_; }
  int32_t device_index() const { return device_index_; }
  bool is_sharded() const { return is_sharded_; }

  // The address of the step count.
  void* step(size_t entry) const { return steps_[entry].count; }
  // The address of the inner learning rate that x is recovered by; null where it is not.
  void* inner_lr(size_t entry) const { return inner_lrs_[entry]; }
  // Sets `step` of the active entries to the count after this step; the tensors get it, too, if `keep`.
  void advance_steps(bool keep);
  // Sets `inner_lr` of the active entries; the tensors get the one of this step.
  void exchange_inner_lrs(double of_this_step);

  // Sets the rows of each tensor for a noise scale; returns how many there are in all. `has_rows` of a tensor without
  // noise is false.
  size_t set_rows(NoiseScale scale);
  bool has_rows(size_t entry, NoiseScale scale) const;
  // Of the whole tensor.
  double numel(size_t entry) const { return members_[entry].numel; }
  double row_numel(size_t entry) const { return members_[entry].row_numel; }

 private:
  friend class BucketUse;
  friend class BoundUse;

  enum Role : int {
    kParam,
    kGradient,
    kLocal,
    kStep,
    kInnerLr,
    kBase,
    kBaseLow,
    kBuffer0,
    kExponents0 = kBuffer0 + kMaxBuffers,
    kRoles = kExponents0 + kMaxBuffers
  };

  struct Member {
    py::object param, dense_param;
    std::string name;
    int32_t ndim;
    size_t dims;              // where its sizes and then its strides begin in dims_
    double numel, row_numel;  // of the whole tensor
    std::array<py::object, kRoles> held;
    std::array<uintptr_t, kRoles> seen;  // addresses of tensors whose storage has been looked at
  };

  struct Step {
    void* count;
    bool is_double;
  };

  void add(const BucketContents& contents, size_t i);
  void collect_computed_gradients();
  py::handle state_of(const py::list& states, size_t i) const;
  void collect(size_t i, const py::list& states, const py::dict* local_gradients);
  bool bind_entry(size_t i, py::list& requests);
  bool bind_param(size_t i);
  bool bind_gradient(size_t i, Role role);
  bool bind_state(size_t i);
  bool bind_state_tensor(size_t i, Role role, DType format, void*& pointer);
  bool bind_exponents(size_t i, size_t buffer);
  bool bind_step(size_t i);
  bool bind_inner_lr(size_t i);
  bool read_scalar(size_t i, Role role, TensorView& view) const;
  bool fits(const TensorView& view, const Member& member, DType format) const;
  bool is_on_step_device(const TensorView& view) const;
  bool is_new(const Member& member, Role role, const TensorView& view) const;
  bool has_shape(const TensorView& view, const Member& member) const;
  [[noreturn]] void reject(const Member& member, Role role, const std::string& why) const;
  void check_memory(Member& member, Role role, PyObject* tensor, const TensorView& view);
  std::string description(const Member& member, Role role) const;
  double counted(size_t i) const;
  void drop();

  bool has_base_, recovers_base_, step_on_device_, is_sharded_;
  std::array<py::object, kRoles> keys_;  // in state dicts, of the roles that have one
  std::vector<DType> buffer_formats_;
  DType gradient_format_, base_format_;
  int32_t device_type_ = 0, device_index_ = 0;  // see TensorView
  DType dtype_ = DType::float32;
  bool complex_ = false;
  std::vector<Member> members_;
  std::vector<TensorEntry> entries_;
  std::vector<Step> steps_;
  std::vector<void*> inner_lrs_;
  std::vector<uint32_t> active_;
  std::vector<int64_t> dims_;
  int64_t active_numel_ = 0;
  size_t missing_ = 0;  // what bind() asked for and has not got
  bool bound_ = false, holds_ = false, in_use_ = false;
};

// One piece of work on a bucket, with the GIL held where it begins and ends. Throws std::runtime_error if there is
// another one, in another thread or further up the stack.
class BucketUse {
 public:
  explicit BucketUse(Bucket& bucket);
  ~BucketUse() { bucket_.in_use_ = false; }
  BucketUse(const BucketUse&) = delete;
  BucketUse& operator=(const BucketUse&) = delete;

 protected:
  Bucket& bucket_;
};

// Work on bound tensors: throws std::runtime_error unless bind() has got all that it asked for.
class BoundUse : BucketUse {
 public:
  enum class Then { keep, release };

  explicit BoundUse(Bucket& bucket, Then then = Then::keep);
  ~BoundUse();

 private:
  Then then_;
};

}  // namespace extrap
