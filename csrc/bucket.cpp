#include "bucket.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "core/formats/block8.h"
#include "gradient.h"
#include "tensor_dtypes.h"
#include "torch_types.h"

namespace extrap {
namespace {

// What the gradient of an empty tensor points to: null would mean that there is none.
constexpr char kNoElements = 0;

// Entries whose tensors are collected before they are read.
constexpr size_t kCollected = 8;

// The noise takes the count as a number of 32 bits.
constexpr double kMaxCount = 4294967295.0;

// From here on, a float skips numbers.
constexpr float kMaxFloatCount = 16777216;

// Interned, so that it is found in a dict by identity.
py::str interned(const char* name) {
  auto key = py::reinterpret_steal<py::str>(PyUnicode_InternFromString(name));
  if (!key) throw py::error_already_set();
  return key;
}

// Held from here on: another thread may take it out of the dict. Null where the key is missing.
py::object item(const py::handle& dict, const py::handle& key) {
  PyObject* value = PyDict_GetItemWithError(dict.ptr(), key.ptr());
  if (!value && PyErr_Occurred()) throw py::error_already_set();
  return py::reinterpret_borrow<py::object>(value);
}

}  // namespace

Bucket::Bucket(BucketContents contents, bool step_on_device)
    : has_base_(contents.has_base),
      recovers_base_(contents.recovers_base),
      step_on_device_(step_on_device),
      is_sharded_(!contents.shards.empty()),
      gradient_format_(format_named(contents.grad_dtype)),
      base_format_(format_named(contents.base_dtype)) {
  const size_t size = contents.params.size();
  if (contents.buffers.size() > kMaxBuffers || contents.buffer_formats.size() != contents.buffers.size())
    throw std::invalid_argument("a rule has at most 2 buffers, each with a format");
  if (contents.dense_params.size() != size || contents.indices.size() != size || contents.names.size() != size ||
      (is_sharded_ && contents.shards.size() != size))
    throw std::invalid_argument("params, dense_params, indices, names and shards must have the same length");
  if (recovers_base_ && (has_base_ || contents.buffers.empty()))
    throw std::invalid_argument("x is recovered from a buffer, where no base is stored");
  keys_[kStep] = interned("step");
  if (recovers_base_) keys_[kInnerLr] = interned("inner_lr");
  keys_[kBase] = interned("base");
  if (splits_base()) keys_[kBaseLow] = interned("base_low");
  for (size_t k = 0; k < contents.buffers.size(); ++k)
    keys_[kBuffer0 + k] = interned(contents.buffers[k].cast<std::string>().c_str());
  for (const std::string& name : contents.buffer_formats) buffer_formats_.push_back(format_named(name));
  for (size_t k = 0; k < buffer_formats_.size() && in_blocks(); ++k)
    keys_[kExponents0 + k] = interned((contents.buffers[k].cast<std::string>() + "_exponent").c_str());
  for (size_t i = 0; i < size; ++i) add(contents, i);
}

void Bucket::add(const BucketContents& contents, size_t i) {
  Member member{};
  member.param = contents.params[i];
  member.dense_param = contents.dense_params[i];
  member.name = contents.names[i];

  TensorView view;
  if (!read_tensor(member.dense_param.ptr(), view))
    reject(
        member, kParam,
        " must be a dense CPU or CUDA tensor of float32, float64, bfloat16, float16 or complex with at most 64 dims");
  check_memory(member, kParam, member.dense_param.ptr(), view);
  if (view.dtype == DType::uint8) reject(member, kParam, " has integers, which cannot be stepped");
  if (i == 0) {
    dtype_ = view.dtype;
    complex_ = view.complex;
    device_type_ = view.device_type;
    device_index_ = view.device_index;
  }
  if (view.dtype != dtype_ || view.complex != complex_ || view.device_type != device_type_ ||
      view.device_index != device_index_)
    reject(member, kParam, " has another dtype or device than the first of its bucket");
  member.ndim = view.ndim;
  member.dims = dims_.size();
  dims_.insert(dims_.end(), view.shape, view.shape + view.ndim);
  dims_.insert(dims_.end(), view.strides, view.strides + view.ndim);

  TensorEntry entry{};
  entry.numel = view.real_numel();
  const Shard whole{0, entry.numel, 0, entry.numel, view.ndim > 0 ? view.shape[0] : 1};
  const Shard& part = is_sharded_ ? contents.shards[i] : whole;
  entry.offset = part.offset;
  entry.extent = std::max<int64_t>(1, part.extent);
  entry.stride = part.stride;
  entry.index = contents.indices[i];
  entry.trust = 1;
  member.numel = static_cast<double>(part.numel);
  member.row_numel = member.numel / static_cast<double>(std::max<int64_t>(1, part.rows));
  members_.push_back(std::move(member));
  entries_.push_back(entry);
  steps_.push_back({});
  inner_lrs_.push_back(nullptr);
}

// --- Binding ---------------------------------------------------------------------------------------------------------

// Those that a subclass computes come before any tensor is read: that runs Python code, which may do anything.
void Bucket::collect_computed_gradients() {
  for (Member& member : members_)
    if (!is_plain_type(Py_TYPE(member.param.ptr()))) member.held[kGradient] = gradient_of(member.param.ptr());
}

// What the step may touch of an entry; nothing if that has no gradient.
void Bucket::collect(size_t i, const py::list& states, const py::dict* local_gradients) {
  const size_t next = i + kCollected;
  if (next < members_.size()) {
    prefetch_tensor(members_[next].dense_param.ptr());
    __builtin_prefetch(state_of(states, next).ptr());
  }
  const py::handle state = state_of(states, i);
  Member& member = members_[i];
  py::object& gradient = member.held[kGradient];
  if (!gradient) gradient = gradient_of(member.param.ptr());
  if (gradient.is_none()) {
    gradient = py::object();
    return;
  }
  if (local_gradients) member.held[kLocal] = item(*local_gradients, member.param);
  if (PyDict_Check(state.ptr()))
    for (size_t role = kStep; role < kRoles; ++role)
      if (keys_[role]) member.held[role] = item(state, keys_[role]);
  for (const py::object& held : member.held)
    if (held) prefetch_tensor(held.ptr());
}

// Borrowed from the list.
py::handle Bucket::state_of(const py::list& states, size_t i) const {
  if (entries_[i].index >= states.size()) throw std::invalid_argument("states lacks that of " + members_[i].name);
  return PyList_GET_ITEM(states.ptr(), static_cast<Py_ssize_t>(entries_[i].index));
}

py::object Bucket::bind(const py::list& states, const py::dict& local_gradients) {
  const BucketUse use(*this);
  if (holds_) drop();
  holds_ = true;
  try {
    collect_computed_gradients();
    const py::dict* locals = PyDict_Size(local_gradients.ptr()) > 0 ? &local_gradients : nullptr;
    py::list requests;
    // A few at a time: to collect them brings them into the cache.
    for (size_t first = 0; first < members_.size(); first += kCollected) {
      const size_t end = std::min(first + kCollected, members_.size());
      for (size_t i = first; i < end; ++i) collect(i, states, locals);
      for (size_t i = first; i < end; ++i) {
        if (!members_[i].held[kGradient] || bind_entry(i, requests)) continue;
        drop();
        return py::none();
      }
    }
    missing_ = requests.size();
    bound_ = true;
    return requests;
  } catch (...) {
    drop();
    throw;
  }
}

// False if the parameter has changed.
bool Bucket::bind_entry(size_t i, py::list& requests) {
  if (!bind_param(i)) return false;
  if (!bind_state(i)) requests.append(py::make_tuple(i, "state"));
  if (!bind_gradient(i, kGradient)) requests.append(py::make_tuple(i, "gradient"));
  if (members_[i].held[kLocal] && !bind_gradient(i, kLocal)) requests.append(py::make_tuple(i, "local"));
  active_.push_back(static_cast<uint32_t>(i));
  active_numel_ += entries_[i].numel;
  return true;
}

bool Bucket::bind_param(size_t i) {
  Member& member = members_[i];
  TensorView view;
  if (!read_tensor(member.dense_param.ptr(), view) || !fits(view, member, dtype_)) return false;
  check_memory(member, kParam, member.dense_param.ptr(), view);
  entries_[i].y = view.data;
  return true;
}

bool Bucket::bind_gradient(size_t i, Role role) {
  Member& member = members_[i];
  PyObject* gradient = member.held[role].ptr();
  TensorView view;
  if (!read_tensor(gradient, view) || !fits(view, member, gradient_format_)) return false;
  // A wrapper keeps its elements elsewhere: torch copies them.
  if (!view.data && view.numel() > 0 && !is_plain_type(Py_TYPE(gradient))) return false;
  check_memory(member, role, gradient, view);
  const void*& pointer = role == kLocal ? entries_[i].local : entries_[i].gradient;
  pointer = view.data ? view.data : &kNoElements;
  return true;
}

bool Bucket::bind_state(size_t i) {
  TensorEntry& entry = entries_[i];
  entry.base = entry.y;
  if (has_base_ ? !bind_state_tensor(i, kBase, base_format_, entry.base) : static_cast<bool>(members_[i].held[kBase]))
    return false;
  if (splits_base() && !bind_state_tensor(i, kBaseLow, DType::uint8, entry.base_low)) return false;
  for (size_t k = 0; k < buffer_formats_.size(); ++k) {
    const Role role = static_cast<Role>(kBuffer0 + k);
    if (!bind_state_tensor(i, role, buffer_formats_[k], entry.buffers[k])) return false;
    if (in_blocks() && !bind_exponents(i, k)) return false;
  }
  return bind_step(i) && (!recovers_base_ || bind_inner_lr(i));
}

// One for each block, in the order of memory.
bool Bucket::bind_exponents(size_t i, size_t buffer) {
  Member& member = members_[i];
  const Role role = static_cast<Role>(kExponents0 + buffer);
  const py::object& tensor = member.held[role];
  if (!tensor) return false;
  TensorView view;
  if (!read_tensor(tensor.ptr(), view) || view.dtype != DType::uint8)
    reject(member, role, " must be a dense tensor of uint8");
  const int64_t numel = view.numel();
  if (numel * kBlockNumbers != entries_[i].numel)
    reject(member, role, " must have one element for each " + std::to_string(kBlockNumbers) + " of the parameter");
  const int64_t strides[] = {numel > 0 ? view.shape[view.ndim - 1] : 1, 1};
  if (view.ndim != 2 || view.device_type != device_type_ || view.device_index != device_index_ ||
      !has_layout(view, 2, view.shape, strides))
    return false;
  check_memory(member, role, tensor.ptr(), view);
  entries_[i].exponents[buffer] = view.data;
  return true;
}

bool Bucket::bind_state_tensor(size_t i, Role role, DType format, void*& pointer) {
  Member& member = members_[i];
  const py::object& tensor = member.held[role];
  if (!tensor) return false;
  TensorView view;
  if (!read_tensor(tensor.ptr(), view)) reject(member, role, " must be a dense tensor of floating-point numbers");
  if (!has_shape(view, member)) reject(member, role, " has another shape than the parameter");
  if (!fits(view, member, format)) return false;
  check_memory(member, role, tensor.ptr(), view);
  pointer = view.data;
  return true;
}

bool Bucket::bind_step(size_t i) {
  Member& member = members_[i];
  TensorView view;
  if (!read_scalar(i, kStep, view)) return false;
  if (!is_on_step_device(view) || (step_on_device_ && view.dtype != DType::float32)) return false;
  check_memory(member, kStep, member.held[kStep].ptr(), view);
  steps_[i] = {view.data, view.dtype == DType::float64};
  if (view.device_type != kCpuDevice) return true;
  entries_[i].step = counted(i);
  return step_on_device_ || view.dtype != DType::float32 || *static_cast<float*>(view.data) < kMaxFloatCount;
}

bool Bucket::bind_inner_lr(size_t i) {
  Member& member = members_[i];
  TensorView view;
  if (!read_scalar(i, kInnerLr, view)) return false;
  if (!is_on_step_device(view) || view.dtype != arithmetic()) return false;
  check_memory(member, kInnerLr, member.held[kInnerLr].ptr(), view);
  inner_lrs_[i] = view.data;
  return true;
}

// A tensor of one element, with which a parameter's state says something of all its elements; false if it is missing.
bool Bucket::read_scalar(size_t i, Role role, TensorView& view) const {
  const Member& member = members_[i];
  const py::object& tensor = member.held[role];
  if (!tensor) return false;
  // Lazy negation is looked for only where the tensor is new: to ask each time takes longer than to read it.
  if (!read_memory(tensor.ptr(), view) || (is_new(member, role, view) && is_lazy(tensor.ptr(), view)) ||
      view.numel() != 1 || view.complex || (view.dtype != DType::float32 && view.dtype != DType::float64))
    reject(member, role, " must be a float32 or float64 tensor of one element");
  return true;
}

bool Bucket::fits(const TensorView& view, const Member& member, DType format) const {
  const int64_t* shape = dims_.data() + member.dims;
  return view.dtype == format && view.complex == complex_ && view.device_type == device_type_ &&
         view.device_index == device_index_ && has_layout(view, member.ndim, shape, shape + member.ndim);
}

bool Bucket::is_on_step_device(const TensorView& view) const {
  if (!step_on_device_) return view.device_type == kCpuDevice;
  return view.device_type == device_type_ && view.device_index == device_index_;
}

bool Bucket::has_shape(const TensorView& view, const Member& member) const {
  return view.ndim == member.ndim && std::equal(view.shape, view.shape + view.ndim, dims_.data() + member.dims);
}

void Bucket::reject(const Member& member, Role role, const std::string& why) const {
  throw std::invalid_argument(description(member, role) + why);
}

bool Bucket::is_new(const Member& member, Role role, const TensorView& view) const {
  return member.seen[role] != reinterpret_cast<uintptr_t>(view.data);
}

// Looks at the size of the storage if the tensor lies where it did not in the last step. To ask in each step would take
// longer than all the rest, and a storage that is resized moves.
void Bucket::check_memory(Member& member, Role role, PyObject* tensor, const TensorView& view) {
  if ((view.data && !is_new(member, role, view)) || view.numel() == 0) return;
  if (!view.data || !storage_suffices(tensor, view))
    reject(member, role, " has fewer bytes in its storage than its elements take; give it its memory back");
  member.seen[role] = reinterpret_cast<uintptr_t>(view.data);
}

std::string Bucket::description(const Member& member, Role role) const {
  const auto state = [&](const py::object& key) { return "state '" + key.cast<std::string>() + "' of " + member.name; };
  switch (role) {
    case kParam:
      return member.name;
    case kGradient:
      return "the gradient of " + member.name;
    case kLocal:
      return "the local gradient of " + member.name;
    default:
      return state(keys_[role]);
  }
}

py::object Bucket::gradient(size_t entry, bool is_local) const {
  return members_.at(entry).held[is_local ? kLocal : kGradient];
}

void Bucket::set_gradient(size_t entry, bool is_local, const py::object& gradient) {
  const BucketUse use(*this);
  Member& member = members_.at(entry);
  const Role role = is_local ? kLocal : kGradient;
  const void* pointer = is_local ? entries_[entry].local : entries_[entry].gradient;
  if (!bound_ || pointer || !member.held[role]) throw std::runtime_error("bind() has not asked for this gradient");
  member.held[role] = gradient;
  if (!bind_gradient(entry, role))
    reject(member, role,
           std::string(" must be a ") + name_of(gradient_format_) +
               " tensor with the shape, the strides and the device of the parameter");
  --missing_;
}

void Bucket::release() {
  const BucketUse use(*this);
  drop();
}

void Bucket::drop() {
  bound_ = holds_ = false;
  missing_ = 0;
  active_.clear();
  active_numel_ = 0;
  for (size_t i = 0; i < members_.size(); ++i) {
    TensorEntry& entry = entries_[i];
    entry.y = entry.base = entry.base_low = nullptr;
    std::fill(std::begin(entry.buffers), std::end(entry.buffers), nullptr);
    std::fill(std::begin(entry.exponents), std::end(entry.exponents), nullptr);
    entry.gradient = entry.local = nullptr;
    entry.rms = nullptr;
    steps_[i] = {};
    inner_lrs_[i] = nullptr;
    for (py::object& held : members_[i].held) held = py::object();
  }
}

// --- Bound tensors ---------------------------------------------------------------------------------------------------

double Bucket::counted(size_t i) const {
  const Step& step = steps_[i];
  const double count = step.is_double ? *static_cast<double*>(step.count) : *static_cast<float*>(step.count);
  if (count >= 0 && count < kMaxCount) return count + 1;
  std::ostringstream why;
  why << " is " << count
      << "; it must count the steps, from 0 to 2**32 - 2: load a sound checkpoint, or delete the state to begin anew";
  reject(members_[i], kStep, why.str());
}

void Bucket::advance_steps(bool keep) {
  for (const uint32_t i : active_) counted(i);  // before any of them changes
  for (const uint32_t i : active_) {
    const double next = entries_[i].step = counted(i);
    if (!keep) continue;
    if (steps_[i].is_double)
      *static_cast<double*>(steps_[i].count) = next;
    else
      *static_cast<float*>(steps_[i].count) = static_cast<float>(next);
  }
}

void Bucket::exchange_inner_lrs(double of_this_step) {
  if (!recovers_base_) return;
  const auto exchange = [&](auto& kept, double& of_entry) {
    of_entry = static_cast<double>(kept);
    kept = static_cast<std::remove_reference_t<decltype(kept)>>(of_this_step);
  };
  for (const uint32_t i : active_) {
    if (arithmetic() == DType::float64)
      exchange(*static_cast<double*>(inner_lrs_[i]), entries_[i].inner_lr);
    else
      exchange(*static_cast<float*>(inner_lrs_[i]), entries_[i].inner_lr);
  }
}

size_t Bucket::set_rows(NoiseScale scale) {
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

bool Bucket::has_rows(size_t entry, NoiseScale scale) const {
  return entries_[entry].numel > 0 && (scale == NoiseScale::tensor || members_[entry].ndim >= 2);
}

BucketUse::BucketUse(Bucket& bucket) : bucket_(bucket) {
  if (bucket.in_use_)
    throw std::runtime_error(
        "step() of this optimizer is running already, in another thread or further up the stack; call it when that has "
        "returned");
  bucket.in_use_ = true;
}

BoundUse::BoundUse(Bucket& bucket, Then then) : BucketUse(bucket), then_(then) {
  if (!bucket.bound_ || bucket.missing_ > 0)
    throw std::runtime_error(
        "the tensors of this step are not bound, or another thread has taken the step; call step() from one thread at "
        "a "
        "time");
}

BoundUse::~BoundUse() {
  if (then_ == Then::release) bucket_.drop();
}

}  // namespace extrap
