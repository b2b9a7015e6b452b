// Fills launch tables: which columns a launch carries, how many tensors fit, and what stands where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
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
  size_t capacity() const {
    size_t bytes = 0;
    for (int c = 0; c < kColumns; ++c)
      if (has(static_cast<Column>(c))) bytes += width(static_cast<Column>(c));
    // kFirst has one entry more.
    return (LaunchTable::kPayloadBytes - width(kFirst)) / bytes;
  }

 private:
  uint32_t mask_ = 0;
};

// The tensors of a launch.
struct TensorRange {
  size_t first, count;
};

// Cuts tensors, of which each has units(i) chunks or segments, into as few launches as possible.
template <class Units>
std::vector<TensorRange> cut_into_launches(const Columns& columns, size_t tensors, const Units& units) {
  const size_t capacity = columns.capacity();
  std::vector<TensorRange> ranges;
  int64_t sum = 0;
  for (size_t i = 0; i < tensors; ++i) {
    sum += units(i);
    if (ranges.empty() || ranges.back().count == capacity || sum > std::numeric_limits<int32_t>::max()) {
      ranges.push_back({i, 0});
      sum = units(i);
    }
    ++ranges.back().count;
  }
  return ranges;
}

// One column of a table, `T` wide. Returns where the next one begins.
template <class T, class Value>
size_t fill_column(LaunchTable& table, size_t offset, TensorRange range, const Value& value) {
  T* cells = reinterpret_cast<T*>(table.payload + offset);
  for (size_t i = 0; i < range.count; ++i) cells[i] = static_cast<T>(value(range.first + i));
  return offset + sizeof(T) * range.count;
}

// kFirst: where the units of each tensor begin, and where those of the last one end.
template <class Units>
size_t fill_first(LaunchTable& table, size_t offset, TensorRange range, const Units& units) {
  uint32_t* first = reinterpret_cast<uint32_t*>(table.payload + offset);
  first[0] = 0;
  for (size_t i = 0; i < range.count; ++i) first[i + 1] = first[i] + static_cast<uint32_t>(units(range.first + i));
  table.units = static_cast<int32_t>(first[range.count]);
  return offset + sizeof(uint32_t) * (range.count + 1);
}

// Fills the payload, and `tensors`, `units` and `offset` of the header. value(column, i): what stands in a column for
// tensor i, a number or an address as one; of kFirst, units(i).
template <class Value, class Units>
void fill_table(LaunchTable& table, const Columns& columns, TensorRange range, const Value& value, const Units& units) {
  size_t next = 0;
  for (int c = 0; c < kColumns; ++c) {
    const Column column = static_cast<Column>(c);
    table.offset[c] = columns.has(column) ? static_cast<uint16_t>(next) : kAbsent;
    if (!columns.has(column)) continue;
    const auto cell = [&](size_t i) { return value(column, i); };
    if (column == kFirst)
      next = fill_first(table, next, range, units);
    else if (Columns::width(column) == 8)
      next = fill_column<uint64_t>(table, next, range, cell);
    else
      next = fill_column<uint32_t>(table, next, range, cell);
  }
  table.tensors = static_cast<int32_t>(range.count);
}

}  // namespace extrap::cuda
