#include "core/hive/hive_checksum.h"

#include <array>
#include <cstring>

#include "core/path/windows_case.h"

namespace vmbfs::hive {

uint32_t ChecksumOf(const BaseBlock& base) {
  std::array<U32, kChecksummedBytes / sizeof(U32)> words;
  std::memcpy(&words, &base, sizeof(words));
  uint32_t checksum = 0;
  for (const U32& word : words) checksum ^= word.value();
  if (checksum == 0xFFFFFFFF) return 0xFFFFFFFE;
  return checksum == 0 ? 1 : checksum;
}

uint32_t HashKeyName(std::u16string_view name) {
  uint32_t hash = 0;
  for (const char16_t unit : name) hash = hash * 37 + UpperCaseUnit(unit);
  return hash;
}

}  // namespace vmbfs::hive
