// The formats that the kernels of a bucket are chosen by.
#pragma once

#include <string>

#include "bucket.h"
#include "core/config.h"

namespace extrap {

// Throws std::invalid_argument if there is no such rule with so many buffers.
TensorFormats formats_of(const std::string& rule, const Bucket& bucket);

[[noreturn]] void throw_no_kernels(const std::string& rule, const Bucket& bucket);

}  // namespace extrap
