#include "cuda/table_builder.h"

#include <limits>

namespace extrap::cuda {

int Columns::capacity() const {
  size_t bytes = 0;
  for (int c = 0; c < kColumns; ++c)
    if (has(static_cast<Column>(c))) bytes += width(static_cast<Column>(c));
  // kFirst has one entry more.
  return static_cast<int>((LaunchTable::kPayloadBytes - width(kFirst)) / bytes);
}

std::vector<TensorRange> cut_into_launches(const Columns& columns, size_t tensors,
                                           const std::function<int64_t(size_t)>& units) {
  const size_t capacity = static_cast<size_t>(columns.capacity());
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

void fill_table(LaunchTable& table, const Columns& columns, TensorRange range, const ColumnValue& value,
                const std::function<int64_t(size_t)>& units) {
  size_t offset = 0;
  for (int c = 0; c < kColumns; ++c) {
    const Column column = static_cast<Column>(c);
    table.offset[c] = kAbsent;
    if (!columns.has(column)) continue;
    table.offset[c] = static_cast<uint16_t>(offset);
    if (column == kFirst) {
      uint32_t* first = reinterpret_cast<uint32_t*>(table.payload + offset);
      first[0] = 0;
      for (size_t i = 0; i < range.count; ++i) first[i + 1] = first[i] + static_cast<uint32_t>(units(range.first + i));
      table.units = static_cast<int32_t>(first[range.count]);
      offset += Columns::width(column);
    } else {
      for (size_t i = 0; i < range.count; ++i) {
        if (Columns::width(column) == 8)
          reinterpret_cast<uint64_t*>(table.payload + offset)[i] = value(column, range.first + i);
        else
          reinterpret_cast<uint32_t*>(table.payload + offset)[i] =
              static_cast<uint32_t>(value(column, range.first + i));
      }
    }
    offset += Columns::width(column) * range.count;
  }
  table.tensors = static_cast<int32_t>(range.count);
}

}  // namespace extrap::cuda
