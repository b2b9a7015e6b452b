// Fills launch tables: which columns a launch carries, how many tensors fit, and what stands where.
#pragma once

#include <functional>
#include <vector>

#include "cuda/launch_table.h"

namespace extrap::cuda {

class Columns {
 public:
  Columns(std::initializer_list<Column> columns) {
    for (const Column column : columns) add(column);
  }
  void add(Column column) { mask_ |= 1u << column; }
  bool has(Column column) const { return (mask_ & (1u << column)) != 0; }

  static size_t width(Column column) { return column < kFirstNarrowColumn ? 8 : 4; }
  // Tensors that one table has room for.
  int capacity() const;

 private:
  uint32_t mask_ = 0;
};

// The tensors of a launch.
struct TensorRange {
  size_t first, count;
};

// Cuts tensors, of which each has units(i) chunks or segments, into as few launches as possible.
std::vector<TensorRange> cut_into_launches(const Columns& columns, size_t tensors,
                                           const std::function<int64_t(size_t)>& units);

// What stands in a column for tensor i of the plan: a number, or an address as one.
using ColumnValue = std::function<uint64_t(Column column, size_t i)>;

// Fills the payload, and `tensors`, `units` and `offset` of the header. kFirst is filled in from units(i).
void fill_table(LaunchTable& table, const Columns& columns, TensorRange range, const ColumnValue& value,
                const std::function<int64_t(size_t)>& units);

}  // namespace extrap::cuda
