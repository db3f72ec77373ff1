#include "core/hive/imc_settings.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "core/hive/value_data.h"
#include "core/path/guest_path.h"
#include "core/path/windows_case.h"

namespace vmbfs::hive {
namespace {

constexpr std::u16string_view kSystem = u"SYSTEM";
constexpr std::u16string_view kCurrentControlSet = u"CurrentControlSet";
constexpr size_t kWarningsMax = 100;
constexpr size_t kFindingsMax = 100;

// Takes the first name off a path; names are separated by single backslashes.
std::u16string_view TakeName(std::u16string_view& path) {
  const size_t end = path.find(u'\\');
  const std::u16string_view name = path.substr(0, end);
  path = end == path.npos ? std::u16string_view() : path.substr(end + 1);
  return name;
}

bool IsNumberedControlSet(std::u16string_view name) {
  constexpr std::u16string_view kPrefix = u"ControlSet";
  if (name.size() != kPrefix.size() + 3) return false;
  if (CompareNames(name.substr(0, kPrefix.size()), kPrefix) != 0) return false;
  for (const char16_t unit : name.substr(kPrefix.size())) {
    if (unit < u'0' || unit > u'9') return false;
  }
  return true;
}

bool IsDword(const RegistryValue& value) {
  return value.type == ValueType::kDword && value.data.size() == 4;
}

char16_t UnitAt(const std::vector<std::byte>& data, size_t index) {
  return static_cast<char16_t>(std::to_integer<unsigned>(data[2 * index]) |
                               std::to_integer<unsigned>(data[2 * index + 1]) << 8);
}

bool IsTerminated(const RegistryValue& value) {
  const size_t units = value.data.size() / sizeof(char16_t);
  if (value.data.size() % sizeof(char16_t) != 0 || units == 0) return false;
  if (UnitAt(value.data, units - 1) != 0) return false;
  // An empty list is one NUL; any other ends with that of its last string and
  // its own.
  return value.type != ValueType::kMultiString || units == 1 || UnitAt(value.data, units - 2) == 0;
}

const RegistryValue* FindValue(const RegistryTree::Key& key, std::u16string_view name) {
  for (const RegistryValue& value : key.values) {
    if (CompareNames(value.name, name) == 0) return &value;
  }
  return nullptr;
}

// At most kFindingsMax, and a word on the others.
void Note(std::vector<std::string>& findings, std::string finding) {
  if (findings.size() > kFindingsMax) return;
  findings.push_back(findings.size() < kFindingsMax ? std::move(finding)
                                                    : "there is more of this kind");
}

bool IsService(const RegistryTree& tree, RegistryTree::KeyId id) {
  constexpr size_t kServiceDepth = 4;  // SYSTEM\CurrentControlSet\Services\NAME
  if (tree.key(id).depth != kServiceDepth) return false;
  const RegistryTree::Key& services = tree.key(tree.key(id).parent);
  return CompareNames(services.name, u"Services") == 0 &&
         CompareNames(tree.key(services.parent).name, kCurrentControlSet) == 0;
}

void CheckValue(const RegistryTree& tree, RegistryTree::KeyId id, const RegistryValue& value,
                ImcFindings& findings) {
  switch (value.type) {
    case ValueType::kString:
    case ValueType::kExpandString:
    case ValueType::kMultiString:
      if (!IsTerminated(value)) {
        Note(findings.errors,
             absl::StrCat(ValuePathText(tree, id, value), ": the string does not end with a NUL"));
      }
      break;
    case ValueType::kDword:
    case ValueType::kDwordBigEndian:
      if (value.data.size() != 4) {
        Note(findings.errors, absl::StrCat(ValuePathText(tree, id, value), ": a DWORD of ",
                                           value.data.size(), " bytes"));
      }
      break;
    case ValueType::kQword:
      if (value.data.size() != 8) {
        Note(findings.errors, absl::StrCat(ValuePathText(tree, id, value), ": a QWORD of ",
                                           value.data.size(), " bytes"));
      }
      break;
    default:
      break;
  }
  const bool of_a_service =
      CompareNames(value.name, u"Start") == 0 || CompareNames(value.name, u"Type") == 0;
  if (of_a_service && IsService(tree, id) && !IsDword(value)) {
    Note(findings.errors,
         absl::StrCat(ValuePathText(tree, id, value), ": a service's Start and Type are DWORDs"));
  }
}

}  // namespace

absl::StatusOr<ImcSettings> ImcSettings::Create(const ImcOptions& options) {
  if (options.sequence < 2 && !options.force) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence ", options.sequence,
                     ": a new machine behaves as if it had seen 1 already and would ignore the "
                     "hive; use 2 or more, or --force"));
  }
  ImcSettings settings(options);
  std::vector<std::byte> data;
  for (size_t i = 0; i < sizeof(options.sequence); ++i) {
    data.push_back(static_cast<std::byte>(options.sequence >> (8 * i)));
  }
  const absl::Status added = settings.tree_.AddValue(
      RegistryTree::kRoot,
      {.name = u"Sequence", .type = ValueType::kDword, .data = std::move(data)});
  if (!added.ok()) return added;
  const auto system = settings.tree_.AddKey(RegistryTree::kRoot, kSystem);
  if (!system.ok()) return system.status();
  return settings;
}

absl::Status ImcSettings::Admit(size_t bytes) {
  if (tree_.key_count() >= kKeysMax || bytes > kDataBytesMax - data_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat("the inputs have more than ", kKeysMax,
                                                     " keys or ", kDataBytesMax,
                                                     " bytes of names and data"));
  }
  data_bytes_ += bytes;
  return absl::OkStatus();
}

absl::StatusOr<ImcSettings::KeyId> ImcSettings::AddKey(std::u16string_view path) {
  if (absl::Status status = Admit(path.size() * sizeof(char16_t)); !status.ok()) return status;
  std::u16string_view rest = path;
  std::u16string_view name = TakeName(rest);
  const bool from_machine =
      CompareNames(name, u"HKEY_LOCAL_MACHINE") == 0 || CompareNames(name, u"HKLM") == 0;
  if (from_machine) name = TakeName(rest);
  if (CompareNames(name, kSystem) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("key ", Utf8FromUtf16(path),
                     ": Windows takes settings below HKEY_LOCAL_MACHINE\\SYSTEM only from an IMC "
                     "hive"));
  }
  absl::StatusOr<KeyId> key = tree_.FindOrAddKey(RegistryTree::kRoot, kSystem);
  if (!key.ok()) return key;
  for (bool first = true; !rest.empty(); first = false) {
    name = TakeName(rest);
    if (first && IsNumberedControlSet(name)) {
      if (!options_.rewrite_control_sets) {
        return absl::InvalidArgumentError(absl::StrCat(
            "key ", Utf8FromUtf16(path), ": ", Utf8FromUtf16(name),
            " may not be the set that the machine uses; write CurrentControlSet, or use "
            "--rewrite-control-sets"));
      }
      if (warnings_.size() < kWarningsMax) {
        warnings_.push_back(
            absl::StrCat("key ", Utf8FromUtf16(path), " was put below CurrentControlSet"));
      }
      name = kCurrentControlSet;
    }
    key = tree_.FindOrAddKey(*key, name);
    if (!key.ok()) {
      return absl::Status(key.status().code(),
                          absl::StrCat("key ", Utf8FromUtf16(path), ": ", key.status().message()));
    }
  }
  return key;
}

absl::Status ImcSettings::AddValue(KeyId key, RegistryValue value) {
  const size_t bytes = value.name.size() * sizeof(char16_t) + value.data.size();
  if (absl::Status status = Admit(bytes); !status.ok()) return status;
  return tree_.AddValue(key, std::move(value));
}

ImcFindings CheckImc(const RegistryTree& tree) {
  ImcFindings findings;
  const RegistryTree::Key& root = tree.key(RegistryTree::kRoot);
  const RegistryValue* const sequence = FindValue(root, u"Sequence");
  if (sequence == nullptr) {
    Note(findings.errors, "the root has no value Sequence: Windows ignores the hive");
  } else if (!IsDword(*sequence)) {
    Note(findings.errors, "the root's value Sequence is no DWORD: Windows ignores the hive");
  } else if (UnitAt(sequence->data, 0) < 2 && UnitAt(sequence->data, 1) == 0) {
    Note(findings.warnings, "Sequence is below 2: a new machine ignores the hive");
  }
  if (!tree.FindKey(RegistryTree::kRoot, kSystem).has_value()) {
    Note(findings.errors, "the root has no key SYSTEM: the hive sets nothing");
  }
  for (const RegistryTree::KeyId id : root.subkeys) {
    if (CompareNames(tree.key(id).name, kSystem) != 0) {
      Note(findings.warnings, absl::StrCat("key ", KeyPathText(tree, id),
                                           " at the root: only SYSTEM is known to be used"));
    }
  }
  for (uint32_t i = 0; i < tree.key_count(); ++i) {
    const RegistryTree::KeyId id{i};
    for (const RegistryValue& value : tree.key(id).values) CheckValue(tree, id, value, findings);
  }
  return findings;
}

}  // namespace vmbfs::hive
