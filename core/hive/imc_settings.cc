#include "core/hive/imc_settings.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/hive/data_text.h"
#include "core/hive/value_data.h"
#include "core/path/windows_case.h"

namespace vmbfs::hive {
namespace {

constexpr std::u16string_view kSystem = u"SYSTEM";
constexpr std::u16string_view kCurrentControlSet = u"CurrentControlSet";
constexpr size_t kSequenceValue = 0;  // among the root's
constexpr size_t kWarningsMax = 100;
constexpr size_t kFindingsMax = 100;

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
  return value.type == ValueType::kDword && NumberOf(value).has_value();
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

absl::Status CheckSequence(uint32_t sequence, bool force) {
  if (sequence >= 2 || force) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("sequence ", sequence,
                   ": a new machine behaves as if it had seen 1 already and would ignore the "
                   "hive; use 2 or more, or --force"));
}

}  // namespace

bool IsControlSet(std::u16string_view name) {
  return CompareNames(name, kCurrentControlSet) == 0 || IsNumberedControlSet(name);
}

ImcSettings::ImcSettings(const ImcOptions& options)
    : options_(options), sequence_(options.sequence) {}

absl::StatusOr<ImcSettings> ImcSettings::Create(const ImcOptions& options) {
  const uint32_t sequence = options.sequence.value_or(kSequenceDefault);
  if (absl::Status status = CheckSequence(sequence, options.force); !status.ok()) return status;
  ImcSettings settings(options);
  const absl::Status added = settings.tree_.AddValue(
      RegistryTree::kRoot,
      {.name = u"Sequence", .type = ValueType::kDword, .data = DwordData(sequence)});
  if (!added.ok()) return added;
  const auto system = settings.tree_.AddKey(RegistryTree::kRoot, kSystem);
  if (!system.ok()) return system.status();
  return settings;
}

absl::Status ImcSettings::SetSequence(uint32_t sequence) {
  if (absl::Status status = CheckSequence(sequence, options_.force); !status.ok()) return status;
  if (sequence_.has_value() && sequence != *sequence_) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence ", sequence, ", and ", *sequence_, " was given before"));
  }
  sequence_ = sequence;
  tree_.SetData(RegistryTree::kRoot, kSequenceValue, DwordData(sequence));
  return absl::OkStatus();
}

absl::Status ImcSettings::Admit(size_t bytes) {
  bytes += kItemBytes;
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
        absl::StrCat("key ", GivenPathText(path),
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
            "key ", GivenPathText(path), ": ", EscapedText(name),
            " may not be the set that the machine uses; write CurrentControlSet, or use "
            "--rewrite-control-sets"));
      }
      if (warnings_.size() < kWarningsMax) {
        warnings_.push_back(
            absl::StrCat("key ", GivenPathText(path), " was put below CurrentControlSet"));
      }
      name = kCurrentControlSet;
    }
    key = tree_.FindOrAddKey(*key, name);
    if (!key.ok()) {
      return absl::Status(key.status().code(),
                          absl::StrCat("key ", GivenPathText(path), ": ", key.status().message()));
    }
  }
  return key;
}

absl::Status ImcSettings::AddValue(KeyId key, RegistryValue value, const InputPlace& place) {
  const size_t bytes = value.name.size() * sizeof(char16_t) + value.data.size();
  if (absl::Status status = Admit(bytes); !status.ok()) return status;
  const std::u16string name = value.name;
  const absl::Status added = tree_.AddValue(key, std::move(value));
  if (added.ok()) Remember(key, place);
  if (!absl::IsAlreadyExists(added)) return added;
  return absl::AlreadyExistsError(
      absl::StrCat(added.message(), "; it was given at ", PlaceOf(key, name)));
}

void ImcSettings::Remember(KeyId key, const InputPlace& place) {
  if (inputs_.empty() || inputs_.back() != place.input) inputs_.emplace_back(place.input);
  const auto index = static_cast<size_t>(key);
  if (places_.size() <= index) places_.resize(tree_.key_count());
  places_[index].push_back({.input = static_cast<uint32_t>(inputs_.size() - 1),
                            .line = place.line,
                            .column = place.column});
}

std::string ImcSettings::PlaceOf(KeyId key, std::u16string_view value) const {
  const std::vector<RegistryValue>& values = tree_.key(key).values;
  const auto found = std::find_if(
      values.begin(), values.end(),
      [value](const RegistryValue& other) { return CompareNames(other.name, value) == 0; });
  const Place& place = places_[static_cast<size_t>(key)][found - values.begin()];
  if (place.line == 0) return absl::StrCat(inputs_[place.input], ": 0x", absl::Hex(place.column));
  return absl::StrCat(inputs_[place.input], ":", place.line, ":", place.column);
}

ImcFindings CheckImc(const RegistryTree& tree) {
  ImcFindings findings;
  const RegistryTree::Key& root = tree.key(RegistryTree::kRoot);
  const RegistryValue* const sequence = FindValue(root, u"Sequence");
  if (sequence == nullptr) {
    Note(findings.errors, "the root has no value Sequence: Windows ignores the hive");
  } else if (!IsDword(*sequence)) {
    Note(findings.errors, "the root's value Sequence is no DWORD: Windows ignores the hive");
  } else if (NumberOf(*sequence) < 2u) {
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
