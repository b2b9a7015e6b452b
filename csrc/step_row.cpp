#include "step_row.h"

#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace extrap {

StepConfig read_row(const pybind11::bytes& row) {
  static_assert(std::is_trivially_copyable_v<StepConfig>);
  const std::string_view bytes(row);
  StepConfig config;
  if (bytes.size() != sizeof config)
    throw std::invalid_argument("a row of scalars has " + std::to_string(sizeof config) + " bytes, not " +
                                std::to_string(bytes.size()));
  memcpy(static_cast<void*>(&config), bytes.data(), sizeof config);
  return config;
}

}  // namespace extrap
