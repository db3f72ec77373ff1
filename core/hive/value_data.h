// The data of values by their types; a value whose data does not fit its type
// has none.

#pragma once

#include <cstdint>
#include <optional>
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

// UTF-8, with control characters (of ASCII and Latin-1) escaped and what is no
// text replaced.
std::string EscapedText(std::u16string_view text);

// A key's path for people, escaped. Of one above 512 bytes the front is left out:
// a hive can name the same long path in every one of a million values.
std::string KeyPathText(const RegistryTree& tree, RegistryTree::KeyId key);

// PATH\NAME, as KeyPathText; "(default)" for a key's default value.
std::string ValuePathText(const RegistryTree& tree, RegistryTree::KeyId key,
                          const RegistryValue& value);

}  // namespace vmbfs::hive
