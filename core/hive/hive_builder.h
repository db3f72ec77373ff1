// Trees of keys in a few words, for tests.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/hive/registry_tree.h"

namespace vmbfs::hive {

inline std::vector<std::byte> LittleEndian(uint64_t number, size_t bytes) {
  std::vector<std::byte> data;
  for (size_t i = 0; i < bytes; ++i) data.push_back(static_cast<std::byte>(number >> (8 * i)));
  return data;
}

inline std::vector<std::byte> Utf16(std::u16string_view text) {
  std::vector<std::byte> data;
  for (const char16_t unit : text) {
    data.push_back(static_cast<std::byte>(unit & 0xFF));
    data.push_back(static_cast<std::byte>(unit >> 8));
  }
  return data;
}

// Strings of these types end with a NUL, lists of strings with two.
inline std::vector<std::byte> Terminated(std::u16string_view text) {
  return Utf16(std::u16string(text) + u'\0');
}

// Adds what it is told; what cannot be added ends the test program.
class HiveBuilder {
 public:
  using KeyId = RegistryTree::KeyId;

  KeyId Key(KeyId parent, std::u16string_view name) { return tree_.AddKey(parent, name).value(); }
  void Value(KeyId key, std::u16string_view name, ValueType type, std::vector<std::byte> data) {
    const auto status =
        tree_.AddValue(key, {.name = std::u16string(name), .type = type, .data = std::move(data)});
    if (!status.ok()) std::abort();
  }
  void Dword(KeyId key, std::u16string_view name, uint32_t number) {
    Value(key, name, ValueType::kDword, LittleEndian(number, 4));
  }
  void String(KeyId key, std::u16string_view name, std::u16string_view text,
              ValueType type = ValueType::kString) {
    Value(key, name, type, Terminated(text));
  }

  const RegistryTree& tree() const { return tree_; }

 private:
  RegistryTree tree_;
};

// The keys and values of Microsoft's hive (shared/specs/imc.md section 3), in the
// order in which its list has them.
inline RegistryTree MicrosoftsTree() {
  HiveBuilder hive;
  hive.Dword(RegistryTree::kRoot, u"Sequence", 2);
  const auto system = hive.Key(RegistryTree::kRoot, u"SYSTEM");
  const auto set = hive.Key(system, u"CurrentControlSet");
  const auto services = hive.Key(set, u"Services");
  const auto control = hive.Key(set, u"Control");
  const auto crash = hive.Key(control, u"CrashControl");
  hive.Dword(crash, u"AutoReboot", 1);
  hive.Dword(crash, u"AlwaysKeepMemoryDump", 1);
  hive.Dword(crash, u"CrashDumpEnabled", 2);
  hive.String(crash, u"DedicatedDumpFile", u"E:\\dumpfile.dmp");
  hive.String(crash, u"DumpFile", u"E:\\memory.dmp", ValueType::kExpandString);
  hive.Dword(crash, u"DumpFileSize", 0xFFF);
  const auto bus = hive.Key(services, u"VMBus");
  const auto agent = hive.Key(services, u"pipette");
  hive.Dword(agent, u"Type", 0x10);
  hive.Dword(agent, u"Start", 2);
  hive.Dword(agent, u"ErrorControl", 1);
  hive.String(agent, u"ImagePath", u"D:\\pipette.exe --service");
  hive.String(agent, u"DisplayName", u"Petri pipette agent");
  hive.String(agent, u"ObjectName", u"LocalSystem");
  hive.Value(agent, u"DependOnService", ValueType::kMultiString,
             Utf16(std::u16string_view(u"RpcSs\0\0", 7)));
  const auto parameters = hive.Key(bus, u"Parameters");
  hive.Dword(parameters, u"AllowAllDevicesWhenIsolated", 1);
  return hive.tree();
}

}  // namespace vmbfs::hive
