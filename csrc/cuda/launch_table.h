// What a launch gets as its one parameter: the options, and a table of tensors that a block finds its work in.
#pragma once

#include <cstdint>

#include "core/config.h"
#include "core/macros.h"

namespace extrap::cuda {

// Kernel parameters may take this many bytes from CUDA 12.1 on, on GPUs of compute capability 7.0 and newer.
constexpr int kParameterBytes = 32764;

constexpr int kThreads = 256;
constexpr int kWarp = 32;            // threads that access memory together
constexpr int64_t kChunk = 2048;     // elements that a block steps at a time
constexpr int64_t kSegment = 32768;  // elements that a block sums at a time
constexpr int64_t kShortRow = 4096;  // elements that a warp sums alone, beside others, if they are a row

// Rows of a tensor that a block sums at a time.
constexpr EXTRAP_HD int rows_at_once(int64_t rows, int64_t length) {
  return rows > 1 && length <= kShortRow ? kThreads / kWarp : 1;
}

// A number that the host knows, or that only the device can read.
struct DeviceScalar {
  double value = 0;
  const void* pointer = nullptr;
  DType dtype = DType::float32;  // of what the pointer points to: float32 or float64

  EXTRAP_HD double get() const {
    if (!pointer) return value;
    return dtype == DType::float64 ? *static_cast<const double*>(pointer) : *static_cast<const float*>(pointer);
  }
};

// The columns of the table, widest first. A launch carries those that it needs.
enum Column : int {
  kY,
  kBase,
  kBaseLow,  // absent where x is not split
  kBuffer0,
  kBuffer1,
  kExponents0,  // of the blocks of the buffers
  kExponents1,
  kGradient,
  kLocal,
  kStep,       // address of the step count
  kInnerLr,    // address of the inner learning rate that x is recovered by; absent: x is stored, or y
  kNumel64,    // instead of kNumel where a tensor has 2^32 elements or more
  kRows,       // of the noise scale; absent: one
  kRowStride,  // element i in memory lies in row (i / row stride) % rows
  kOffset,     // these three: where a shard lies in the whole tensor, see TensorEntry
  kExtent,
  kStride,
  kFirst,  // number of the tensor's first chunk or segment; one more entry than tensors: their sum
  kNumel,
  kIndex,  // position in the optimizer
  kSlot,   // where the sums of the tensor's rows begin; kNoSlot where it has no noise
  kColumns
};
constexpr int kFirstNarrowColumn = kFirst;  // columns from here on have 4 bytes an entry, those before 8

constexpr uint32_t kNoSlot = 0xffffffffu;

// Scratch memory of a plan, on the device. Counters are 0 between launches.
struct Workspace {
  double* norm_sums;      // two for each tensor: of the squares of x, and of what the rule scales
  double* row_rms;        // root mean square of x, by slot; of sharded tensors the sum of squares at first
  double* partial_sums;   // two for each segment
  int32_t* row_arrivals;  // segments that are summed, by slot
  int32_t* block_arrivals;
};

struct LaunchHeader {
  StepConfig config;
  DeviceScalar lr, extrap_lr, grad_scale, clip, found_inf;
  Workspace workspace;
  double* total;   // where the sum of all squares is added
  bool sums_only;  // leave the sums in row_rms: the tensors are parts of others
  int32_t tensors;
  int32_t units;              // chunks or segments, of all tensors
  uint16_t offset[kColumns];  // in bytes; kAbsent: the launch does not carry the column
};

constexpr uint16_t kAbsent = 0xffff;

struct LaunchTable : LaunchHeader {
  static constexpr size_t kPayloadBytes = (kParameterBytes - sizeof(LaunchHeader)) / 8 * 8;
  alignas(8) unsigned char payload[kPayloadBytes];

  EXTRAP_HD bool has(Column column) const { return offset[column] != kAbsent; }

  template <class T>
  EXTRAP_HD T get(Column column, int tensor) const {
    return reinterpret_cast<const T*>(payload + offset[column])[tensor];
  }

  template <class T>
  EXTRAP_HD T* pointer(Column column, int tensor) const {
    return has(column) ? get<T*>(column, tensor) : nullptr;
  }

  EXTRAP_HD int64_t numel(int tensor) const {
    return has(kNumel64) ? get<int64_t>(kNumel64, tensor) : static_cast<int64_t>(get<uint32_t>(kNumel, tensor));
  }

  EXTRAP_HD int64_t rows(int tensor) const { return has(kRows) ? get<int64_t>(kRows, tensor) : 1; }

  EXTRAP_HD int64_t row_stride(int tensor) const {
    return has(kRowStride) ? get<int64_t>(kRowStride, tensor) : numel(tensor);
  }

  // The tensor that a chunk or segment belongs to: the last one that begins at it or before it.
  EXTRAP_HD int find(int unit) const {
    int low = 0, high = tensors;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (get<uint32_t>(kFirst, middle) <= static_cast<uint32_t>(unit))
        low = middle;
      else
        high = middle;
    }
    return low;
  }

  EXTRAP_HD bool skipped() const { return found_inf.get() != 0; }

  // The options with what only the device knows filled in.
  EXTRAP_HD StepConfig resolved_config() const {
    StepConfig c = config;
    c.lr = lr.get();
    c.extrap_lr = extrap_lr.get();
    c.grad_scale = grad_scale.get();
    c.clip = clip.get();
    return c;
  }
};
static_assert(sizeof(LaunchTable) <= kParameterBytes);

}  // namespace extrap::cuda
