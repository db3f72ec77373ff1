// The data of values by their types; a value whose data does not fit its type
// has none.
//
// Thread safety: any thread.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

// Of REG_DWORD (either byte order) and REG_QWORD with as many bytes.
std::optional<uint64_t> NumberOf(const RegistryValue& value);

// Of REG_SZ and REG_EXPAND_SZ that end with their only NUL; without it.
std::optional<std::u16string> StringOf(const RegistryValue& value);

// Of REG_MULTI_SZ: strings that each end with a NUL, and one more NUL.
std::optional<std::vector<std::u16string>> StringsOf(const RegistryValue& value);

// Whether a value of one of the three types of strings ends as its readers
// expect; NULs may stand within it as well.
bool IsTerminated(const RegistryValue& value);

// The data of a REG_DWORD, a REG_QWORD, a REG_SZ or REG_EXPAND_SZ.
std::vector<std::byte> DwordData(uint32_t number);
std::vector<std::byte> QwordData(uint64_t number);
std::vector<std::byte> StringData(std::u16string_view text);
// Of a REG_MULTI_SZ. REQUIRES: no string is empty.
std::vector<std::byte> StringsData(std::span<const std::u16string> strings);

}  // namespace vmbfs::hive
