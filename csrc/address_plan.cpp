#include "address_plan.h"

#include <stdexcept>
#include <string>

namespace extrap {
namespace {

enum Cell : size_t { kStep, kInnerLr, kY, kBase, kBaseLow, kGradient, kLocal, kAligned, kFirstBuffer };

int64_t address(const void* pointer) { return static_cast<int64_t>(reinterpret_cast<uintptr_t>(pointer)); }

void write_row(const TensorEntry& t, const void* step, const void* inner_lr, int buffers, bool exponents,
               int64_t* row) {
  row[kStep] = address(step);
  row[kInnerLr] = address(inner_lr);
  row[kY] = address(t.y);
  row[kBase] = address(t.base);
  row[kBaseLow] = address(t.base_low);
  // An empty tensor may lie nowhere, and its step counts nevertheless.
  row[kGradient] = t.gradient ? address(t.gradient) : 16;
  row[kLocal] = address(t.local);
  int64_t all = row[kY] | row[kBase] | row[kBaseLow] | row[kGradient] | row[kLocal];
  for (int k = 0; k < buffers; ++k) {
    row[kFirstBuffer + static_cast<size_t>(k)] = address(t.buffers[k]);
    all |= address(t.buffers[k]);
    if (exponents) row[kFirstBuffer + static_cast<size_t>(kMaxBuffers + k)] = address(t.exponents[k]);
  }
  row[kAligned] = all % 16 == 0;
}

}  // namespace

void AddressPlan::write_rows(const py::buffer& table, size_t first, size_t width) {
  const BoundUse use(bucket_);
  const py::buffer_info info = table.request(/*writable=*/true);
  const bool exponents = bucket_.in_blocks();
  const size_t row = kFirstBuffer + static_cast<size_t>(bucket_.buffers() + (exponents ? kMaxBuffers : 0));
  const size_t needed = first + width * (bucket_.size() - 1) + row;
  if (info.itemsize != sizeof(int64_t) || info.ndim != 1 || width < row || static_cast<size_t>(info.size) < needed)
    throw std::invalid_argument("the table has " + std::to_string(info.size) + " cells of " +
                                std::to_string(info.itemsize) + " bytes; these rows need " + std::to_string(needed) +
                                " of 8, and " + std::to_string(row) + " each");
  int64_t* rows = static_cast<int64_t*>(info.ptr) + first;
  for (size_t i = 0; i < bucket_.size(); ++i) rows[i * width + kGradient] = 0;
  for (const uint32_t i : bucket_.active())
    write_row(bucket_.entries()[i], bucket_.step(i), bucket_.inner_lr(i), bucket_.buffers(), exponents,
              rows + i * width);
}

}  // namespace extrap
