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

// nullopt: no UTF-8, or more than 2 GiB.
std::optional<std::u16string> UnitsFromUtf8(std::string_view text);

std::vector<std::byte> BytesFromUnits(std::u16string_view units);

// Every surrogate is half of a pair: there is UTF-8 for it. Names in a registry
// may be otherwise.
bool IsUnicode(std::u16string_view units);

}  // namespace vmbfs::hive
