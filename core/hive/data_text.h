// Names, paths and data of a registry as text for people: UTF-8, with control
// characters (of ASCII and Latin-1) escaped and what is no text replaced.
//
// Thread safety: any thread.

#pragma once

#include <string>
#include <string_view>

#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

std::string EscapedText(std::u16string_view text);

// A path as an input has it, cut after 512 units.
std::string GivenPathText(std::u16string_view path);

// A key's path. Of one above 512 bytes the front is left out: a hive can name
// the same long path in every one of a million values.
std::string KeyPathText(const RegistryTree& tree, RegistryTree::KeyId key);

// PATH\NAME, as KeyPathText; "(default)" for a key's default value.
std::string ValuePathText(const RegistryTree& tree, RegistryTree::KeyId key,
                          const RegistryValue& value);

// A value's data: strings in quotes, numbers in decimal and hexadecimal, bytes
// in hexadecimal, cut after 64.
std::string DataText(const RegistryValue& value);

// "REG_DWORD"; "type 0x1234" for one without a name.
std::string TypeText(ValueType type);

}  // namespace vmbfs::hive
