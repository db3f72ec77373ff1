#include "hyperv/guid/guid.h"

namespace vmbfs::hyperv {

std::string Guid::ToString() const {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(kTextBytes);
  for (const size_t wire_index : guid_internal::kWireIndexOfTextByte) {
    if (guid_internal::IsDash(text.size())) text.push_back('-');
    const auto value = std::to_integer<unsigned>(bytes[wire_index]);
    text.push_back(kDigits[value >> 4]);
    text.push_back(kDigits[value & 0xF]);
  }
  return text;
}

}  // namespace vmbfs::hyperv
