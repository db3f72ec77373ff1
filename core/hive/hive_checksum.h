// The two numbers that a hive is checked by: the base block's checksum and the
// hashes of key names.
//
// Thread safety: any thread.

#pragma once

#include <cstdint>
#include <string_view>

#include "core/hive/hive_format.h"

namespace vmbfs::hive {

// Over the words in front of `checksum` (shared/specs/imc.md 2.1).
uint32_t ChecksumOf(const BaseBlock& base);

// As `lh` lists hold it: over the name's upper-cased units (2.3).
uint32_t HashKeyName(std::u16string_view name);

}  // namespace vmbfs::hive
