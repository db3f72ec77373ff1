#include "core/hive/explain.h"

#include <array>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/hive/data_text.h"
#include "core/hive/value_data.h"
#include "core/path/windows_case.h"

namespace vmbfs::hive {
namespace {

using KeyId = RegistryTree::KeyId;

struct Meaning {
  uint32_t number;
  const char* text;
};

// How a value of one kind is put into words: `before`, the data, `after`; with
// `meanings` the data is one of these numbers.
struct Rule {
  // Names from below the root, `*` for any one.
  std::u16string_view path;
  std::u16string_view value;  // `*`: any
  const char* text;           // $* the name that `*` stood for, $v the value's, $d the data
  std::span<const Meaning> meanings = {};
};

constexpr std::array<Meaning, 5> kStarts = {{{0, "by the boot loader"},
                                             {1, "by the kernel"},
                                             {2, "automatically, at boot"},
                                             {3, "on demand"},
                                             {4, "never: it is disabled"}}};
constexpr std::array<Meaning, 7> kServiceTypes = {{{0x01, "a kernel driver"},
                                                   {0x02, "a file system driver"},
                                                   {0x08, "a file system recogniser"},
                                                   {0x10, "a program of its own process"},
                                                   {0x20, "a program that shares a process"},
                                                   {0x110, "an interactive program"},
                                                   {0x120, "an interactive, shared program"}}};
constexpr std::array<Meaning, 4> kErrorControls = {
    {{0, "is ignored"},
     {1, "is logged, and the boot goes on"},
     {2, "restarts the machine with the last good configuration"},
     {3, "fails the boot"}}};
constexpr std::array<Meaning, 5> kDumps = {{{0, "no dump"},
                                            {1, "a complete dump"},
                                            {2, "a dump of the kernel's memory"},
                                            {3, "a small dump"},
                                            {7, "a dump of automatic size"}}};
constexpr std::array<Meaning, 2> kYesNo = {{{0, "no"}, {1, "yes"}}};
constexpr std::array<Meaning, 2> kRemoteDesktop = {{{0, "is allowed"}, {1, "is refused"}}};

// The first that fits is taken. Meanings are those of Microsoft's documentation.
constexpr Rule kRules[] = {
    {u"", u"Sequence", "the machine takes this hive if it has not seen number $d"},
    {u"SYSTEM\\CurrentControlSet\\Services\\*", u"Start", "service $* starts $d", kStarts},
    {u"SYSTEM\\CurrentControlSet\\Services\\*", u"Type", "service $* is $d", kServiceTypes},
    {u"SYSTEM\\CurrentControlSet\\Services\\*", u"ErrorControl",
     "a failure of service $* at boot $d", kErrorControls},
    {u"SYSTEM\\CurrentControlSet\\Services\\*", u"ImagePath", "service $* runs $d"},
    {u"SYSTEM\\CurrentControlSet\\Services\\*", u"DisplayName", "service $* is shown as $d"},
    {u"SYSTEM\\CurrentControlSet\\Services\\*", u"Description", "service $* is described as $d"},
    {u"SYSTEM\\CurrentControlSet\\Services\\*", u"ObjectName", "service $* runs as $d"},
    {u"SYSTEM\\CurrentControlSet\\Services\\*", u"Group", "service $* loads with group $d"},
    {u"SYSTEM\\CurrentControlSet\\Services\\*", u"DependOnService",
     "service $* starts after services $d"},
    {u"SYSTEM\\CurrentControlSet\\Services\\*", u"DependOnGroup",
     "service $* starts after groups $d"},
    {u"SYSTEM\\CurrentControlSet\\Services\\*", u"DelayedAutostart",
     "service $* starts some time after the boot: $d", kYesNo},
    {u"SYSTEM\\CurrentControlSet\\Services\\*", u"RequiredPrivileges",
     "service $* has the privileges $d"},
    {u"SYSTEM\\CurrentControlSet\\Services\\Tcpip\\Parameters", u"Hostname",
     "the TCP/IP host name is $d"},
    {u"SYSTEM\\CurrentControlSet\\Services\\Tcpip\\Parameters", u"NV Hostname",
     "the TCP/IP host name from the next boot on is $d"},
    {u"SYSTEM\\CurrentControlSet\\Services\\Tcpip\\Parameters", u"Domain", "the DNS domain is $d"},
    {u"SYSTEM\\CurrentControlSet\\Services\\Tcpip\\Parameters", u"NV Domain",
     "the DNS domain from the next boot on is $d"},
    {u"SYSTEM\\CurrentControlSet\\Services\\VMBus\\Parameters", u"AllowAllDevicesWhenIsolated",
     "an isolated machine uses all VMBus devices: $d", kYesNo},
    {u"SYSTEM\\CurrentControlSet\\Control\\ComputerName\\ComputerName", u"ComputerName",
     "the computer's name from the next boot on is $d"},
    {u"SYSTEM\\CurrentControlSet\\Control\\ComputerName\\ActiveComputerName", u"ComputerName",
     "the computer's name of this boot is $d"},
    {u"SYSTEM\\CurrentControlSet\\Control\\CrashControl", u"CrashDumpEnabled", "a crash writes $d",
     kDumps},
    {u"SYSTEM\\CurrentControlSet\\Control\\CrashControl", u"AutoReboot",
     "a crash restarts the machine: $d", kYesNo},
    {u"SYSTEM\\CurrentControlSet\\Control\\CrashControl", u"DumpFile",
     "a crash dump is kept as $d"},
    {u"SYSTEM\\CurrentControlSet\\Control\\CrashControl", u"DedicatedDumpFile",
     "a crash is first written to $d"},
    {u"SYSTEM\\CurrentControlSet\\Control\\CrashControl", u"DumpFileSize", "that file has $d MB"},
    {u"SYSTEM\\CurrentControlSet\\Control\\CrashControl", u"MinidumpDir",
     "small dumps are kept in $d"},
    {u"SYSTEM\\CurrentControlSet\\Control\\CrashControl", u"AlwaysKeepMemoryDump",
     "a dump is kept when disk space is short: $d", kYesNo},
    {u"SYSTEM\\CurrentControlSet\\Control\\CrashControl", u"Overwrite",
     "a dump replaces the one before: $d", kYesNo},
    {u"SYSTEM\\CurrentControlSet\\Control\\CrashControl", u"LogEvent",
     "a crash is written to the event log: $d", kYesNo},
    {u"SYSTEM\\CurrentControlSet\\Control\\CrashControl", u"NMICrashDump",
     "a non-maskable interrupt crashes the machine: $d", kYesNo},
    {u"SYSTEM\\CurrentControlSet\\Control\\TimeZoneInformation", u"TimeZoneKeyName",
     "the time zone is $d"},
    {u"SYSTEM\\CurrentControlSet\\Control\\TimeZoneInformation", u"RealTimeIsUniversal",
     "the hardware clock is in UTC: $d", kYesNo},
    {u"SYSTEM\\CurrentControlSet\\Control\\TimeZoneInformation", u"DynamicDaylightTimeDisabled",
     "daylight saving time is left out: $d", kYesNo},
    {u"SYSTEM\\CurrentControlSet\\Control\\Terminal Server", u"fDenyTSConnections",
     "remote desktop $d", kRemoteDesktop},
    {u"SYSTEM\\CurrentControlSet\\Control\\Terminal Server\\WinStations\\RDP-Tcp",
     u"UserAuthentication", "remote desktop wants authentication before the connection: $d",
     kYesNo},
    {u"SYSTEM\\CurrentControlSet\\Control\\Terminal Server\\WinStations\\RDP-Tcp", u"PortNumber",
     "remote desktop listens on port $d"},
    {u"SYSTEM\\CurrentControlSet\\Control\\Session Manager\\Environment", u"*",
     "the environment variable $v of all processes is $d"},
    {u"SYSTEM\\CurrentControlSet\\Control\\Session Manager", u"BootExecute",
     "the session manager runs at boot $d"},
    {u"SYSTEM\\CurrentControlSet\\Control\\Session Manager", u"PendingFileRenameOperations",
     "the session manager renames or deletes at boot $d"},
    {u"SYSTEM\\CurrentControlSet\\Control\\Session Manager\\Memory Management", u"PagingFiles",
     "page files are $d"},
    {u"SYSTEM\\CurrentControlSet\\Control\\Windows", u"NoPopUpsOnBoot",
     "no messages pop up at boot: $d", kYesNo},
    {u"SYSTEM\\CurrentControlSet\\Control\\Lsa", u"LimitBlankPasswordUse",
     "accounts without a password work at the console only: $d", kYesNo},
    {u"SYSTEM\\CurrentControlSet\\Control\\FileSystem", u"LongPathsEnabled",
     "programs may use long paths: $d", kYesNo},
    {u"SYSTEM\\Setup", u"CmdLine", "setup runs $d"},
};

// The name that `*` stands for, or an empty one; nullopt when it does not match.
std::optional<std::u16string> MatchPath(const RegistryTree& tree, KeyId id,
                                        std::u16string_view pattern) {
  std::vector<const std::u16string*> names(tree.key(id).depth);
  for (size_t i = names.size(); i > 0; --i, id = tree.key(id).parent) {
    names[i - 1] = &tree.key(id).name;
  }
  std::u16string wildcard;
  for (const std::u16string* name : names) {
    if (pattern.empty()) return std::nullopt;
    const std::u16string_view expected = TakeName(pattern);
    if (expected == u"*") {
      wildcard = *name;
    } else if (CompareNames(expected, *name) != 0) {
      return std::nullopt;
    }
  }
  if (!pattern.empty()) return std::nullopt;
  return wildcard;
}

std::optional<std::string> DataByRule(const Rule& rule, const RegistryValue& value) {
  if (rule.meanings.empty()) return DataText(value);
  const auto number = NumberOf(value);
  if (!number.has_value()) return std::nullopt;
  for (const Meaning& meaning : rule.meanings) {
    if (meaning.number == *number) return meaning.text;
  }
  return std::nullopt;
}

std::string Filled(std::string_view text, const std::string& wildcard, const std::string& value,
                   const std::string& data) {
  std::string filled;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '$' || i + 1 == text.size()) {
      filled.push_back(text[i]);
      continue;
    }
    const char what = text[++i];
    filled += what == '*' ? wildcard : what == 'v' ? value : data;
  }
  return filled;
}

std::string ExplainValue(const RegistryTree& tree, KeyId id, const RegistryValue& value) {
  for (const Rule& rule : kRules) {
    if (rule.value != u"*" && CompareNames(rule.value, value.name) != 0) continue;
    const auto wildcard = MatchPath(tree, id, rule.path);
    if (!wildcard.has_value()) continue;
    const auto data = DataByRule(rule, value);
    if (!data.has_value()) break;  // not one of the numbers that are known
    return Filled(rule.text, EscapedText(*wildcard), EscapedText(value.name), *data);
  }
  return absl::StrCat("sets ", ValuePathText(tree, id, value), " to ", DataText(value), ", ",
                      TypeText(value.type));
}

}  // namespace

void ExplainHive(const RegistryTree& tree, const LineSink& line) {
  for (const KeyId id : tree.KeysInOrder()) {
    const RegistryTree::Key& key = tree.key(id);
    for (const RegistryValue& value : key.values) {
      line(ExplainValue(tree, id, value));
    }
    if (key.subkeys.empty() && key.values.empty() && id != RegistryTree::kRoot) {
      line(absl::StrCat("makes key ", KeyPathText(tree, id)));
    }
  }
}

std::vector<std::string> ExplainHive(const RegistryTree& tree) {
  std::vector<std::string> lines;
  ExplainHive(tree, [&lines](const std::string& line) { lines.push_back(line); });
  return lines;
}

}  // namespace vmbfs::hive
