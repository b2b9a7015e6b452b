#include "bucket_formats.h"

#include <stdexcept>
#include <vector>

#include "facts.h"
#include "tensor_dtypes.h"

namespace extrap {
namespace {

// The format of the buffers of one sign; a rule that has none of them takes what the others have.
DType format_of(bool is_signed, const RuleFacts& rule, const Bucket& bucket) {
  const std::vector<DType>& formats = bucket.buffer_formats();
  if (formats.empty()) return bucket.arithmetic();
  for (size_t k = 0; k < formats.size(); ++k)
    if (rule.is_signed[k] == is_signed) return formats[k];
  return formats.front();
}

}  // namespace

TensorFormats formats_of(const std::string& name, const Bucket& bucket) {
  for (const RuleFacts& rule : rule_facts()) {
    if (rule.name != name || rule.is_signed.size() != bucket.buffer_formats().size()) continue;
    const TensorFormats formats = {bucket.param_format(), bucket.gradient_format(), bucket.base_format(),
                                   format_of(true, rule, bucket), format_of(false, rule, bucket)};
    for (size_t k = 0; k < rule.is_signed.size(); ++k)
      if (bucket.buffer_formats()[k] != (rule.is_signed[k] ? formats.signed_buffer : formats.unsigned_buffer))
        throw std::invalid_argument("buffers of the same sign must have the same format");
    return formats;
  }
  throw std::invalid_argument("there is no rule '" + name + "' with " + std::to_string(bucket.buffers()) + " buffers");
}

void throw_no_kernels(const std::string& rule, const Bucket& bucket) {
  std::string formats;
  for (const DType format : bucket.buffer_formats()) formats += std::string(" ") + name_of(format);
  throw std::invalid_argument("this backend has no kernels of rule '" + rule + "' for parameters in " +
                              name_of(bucket.param_format()) + ", gradients in " + name_of(bucket.gradient_format()) +
                              " and buffers in" + (formats.empty() ? " no format" : formats) +
                              "; use state_dtype=torch.float32");
}

}  // namespace extrap
