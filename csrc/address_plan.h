// The tensors of a bucket for kernels that Python launches: tells where they lie.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <utility>

#include "bucket.h"

namespace extrap {

class AddressPlan {
 public:
  explicit AddressPlan(BucketContents contents) : bucket_(std::move(contents), /*step_on_device=*/true) {}

  Bucket& bucket() { return bucket_; }

  // Of what is bound, a row for each entry in a table of int64, the first one at cell `first`, then one every `width`:
  // addresses of the step count, the inner learning rate that x is recovered by (0: it is not), y, x, the gradient and
  // the local gradient; whether all but the first two are multiples of 16; addresses of the buffers, and, kMaxBuffers
  // later, of the exponents of those in blocks. An entry that is left out of the step has 0 for its gradient, and no
  // other change.
  void write_rows(const py::buffer& table, size_t first, size_t width);

 private:
  Bucket bucket_;
};

}  // namespace extrap
