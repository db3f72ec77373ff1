// UTF-16 as files and values hold it: little-endian bytes.
//
// Thread safety: any thread.

#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vmbfs::hive {

// nullopt: an odd number of bytes.
std::optional<std::u16string> UnitsFromBytes(std::span<const std::byte> bytes);

std::vector<std::byte> BytesFromUnits(std::u16string_view units);

// Every surrogate is half of a pair: there is UTF-8 for it. Names in a registry
// may be otherwise.
bool IsUnicode(std::u16string_view units);

}  // namespace vmbfs::hive
