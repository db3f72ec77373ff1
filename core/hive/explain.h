// What a hive will do to the machine that takes it, in words.

#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

// One line of UTF-8 text for each value, and for each key that only exists, in
// the order of the tree; control characters are escaped. Where the meaning of a
// value is known it is said, otherwise the line says what is set.
std::vector<std::string> ExplainHive(const RegistryTree& tree);

// A value's data for people: strings in quotes, numbers in decimal and
// hexadecimal, bytes in hexadecimal, cut after 64.
std::string DataText(const RegistryValue& value);

// A name for people: control characters are escaped.
std::string NameText(std::u16string_view name);

// "REG_DWORD"; "type 0x1234" for one without a name.
std::string TypeText(ValueType type);

}  // namespace vmbfs::hive
