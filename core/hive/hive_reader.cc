#include "core/hive/hive_reader.h"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/hive/hive_cells.h"
#include "core/hive/hive_checksum.h"
#include "core/hive/hive_format.h"
#include "core/hive/security_descriptor.h"
#include "core/hive/value_reader.h"
#include "core/path/windows_case.h"

namespace vmbfs::hive {
namespace {

using KeyId = RegistryTree::KeyId;

constexpr uint16_t kKeyFlagsKnown = kKeyHiveRoot | kKeyNoDelete | kKeyNameIsLatin1;

// A key that a list names: where it is, and what the list says of its name.
struct ListedKey {
  uint32_t offset = 0;
  uint16_t list_signature = 0;
  uint32_t hint = 0;
  uint32_t list_offset = 0;
};

// Whether `hint` fits the name; lists without hints fit any.
bool HintFits(const ListedKey& listed, std::u16string_view name) {
  if (listed.list_signature == kHashLeafSignature) return listed.hint == HashKeyName(name);
  if (listed.list_signature != kFastLeafSignature) return true;
  // The first four characters, as they are; names beyond Latin-1 have zeros.
  for (size_t i = 0; i < 4; ++i) {
    const uint32_t character = (listed.hint >> (8 * i)) & 0xFF;
    const uint32_t expected = i < name.size() ? name[i] : 0;
    if (character != expected && !(expected > 0xFF && character == 0)) return false;
  }
  return true;
}

class Reader {
 public:
  explicit Reader(HiveCells cells) : cells_(std::move(cells)) {}

  absl::StatusOr<HiveReading> Read();

 private:
  struct Work {  // a key whose record was read, with what is left to be read
    KeyId id{};
    uint32_t offset = 0;
    KeyRecord record;
  };

  absl::Status ReadRoot();
  absl::Status ReadKey(const Work& work);
  absl::StatusOr<std::pair<KeyRecord, std::u16string>> ReadKeyRecord(uint32_t offset,
                                                                     uint32_t parent_offset);
  absl::Status CheckMaxima(const Work& work) const;
  absl::StatusOr<std::vector<ListedKey>> ReadList(uint32_t offset, uint32_t count);
  absl::Status ReadLeaf(const Record& leaf, size_t keys_max, std::vector<ListedKey>& keys) const;
  absl::Status ReadValues(const Work& work);
  absl::Status ReadSecurity();

  HiveCells cells_;
  std::optional<RegistryTree> tree_;
  std::deque<Work> work_;
  std::map<uint32_t, uint32_t> security_users_;  // offset -> keys
  size_t classes_ = 0;
};

absl::StatusOr<HiveReading> Reader::Read() {
  if (absl::Status status = ReadRoot(); !status.ok()) return status;
  while (!work_.empty()) {
    const Work work = work_.front();
    work_.pop_front();
    if (absl::Status status = ReadKey(work); !status.ok()) return status;
  }
  if (absl::Status status = ReadSecurity(); !status.ok()) return status;
  HiveReading reading{.tree = *std::move(tree_), .version_minor = cells_.minor(), .warnings = {}};
  if (cells_.trailing_bytes() > 0) {
    reading.warnings.push_back(
        absl::StrCat(cells_.trailing_bytes(), " bytes lie behind the hive and are ignored"));
  }
  if (cells_.unclaimed() > 0) {
    reading.warnings.push_back(
        absl::StrCat(cells_.unclaimed(), " cells are in use and nothing refers to them"));
  }
  if (classes_ > 0) {
    reading.warnings.push_back(absl::StrCat(classes_, " keys have a class name, which is ignored"));
  }
  return reading;
}

absl::Status Reader::ReadRoot() {
  const uint32_t offset = cells_.base().root_offset.value();
  auto root = ReadKeyRecord(offset, kNoCell);
  if (!root.ok()) return root.status();
  tree_.emplace(std::move(root->second));
  work_.push_back({.id = RegistryTree::kRoot, .offset = offset, .record = root->first});
  return absl::OkStatus();
}

absl::StatusOr<std::pair<KeyRecord, std::u16string>> Reader::ReadKeyRecord(uint32_t offset,
                                                                           uint32_t parent_offset) {
  const auto refuse = [offset](absl::string_view why) { return RefuseAt("key", offset, why); };
  const bool root = parent_offset == kNoCell;
  const absl::StatusOr<Record> cell = cells_.Claim(offset, "key");
  if (!cell.ok()) return cell.status();
  if (!cell->Holds(0, sizeof(KeyRecord))) return refuse("its cell is too small");
  if (cell->bytes().size() + kCellHeaderBytes > kKeyCellBytesMax) {
    return refuse(absl::StrCat("its cell has ", cell->bytes().size() + kCellHeaderBytes,
                               " bytes; at most ", kKeyCellBytesMax, " are possible"));
  }
  const auto record = cell->At<KeyRecord>(0);
  if (record.signature.value() != kKeySignature) return refuse("its signature is not `nk`");
  const uint16_t flags = record.flags.value();
  if ((flags & ~kKeyFlagsKnown) != 0) {
    return refuse(absl::StrCat("its flags are 0x", absl::Hex(flags)));
  }
  if (!root && (flags & kKeyHiveRoot) != 0) return refuse("it says that it is the root");
  // A root that the kernel made has a parent of the hive it hangs in.
  if (!root && record.parent_offset.value() != parent_offset) {
    return refuse(absl::StrCat("its parent is 0x", absl::Hex(record.parent_offset.value()),
                               ", not 0x", absl::Hex(parent_offset)));
  }
  if (record.volatile_subkey_count.value() != 0) return refuse("it has volatile subkeys");
  const size_t name_bytes = record.name_bytes.value();
  if (name_bytes == 0) return refuse("its name is empty");
  if (!cell->Holds(sizeof(KeyRecord), name_bytes)) return refuse("its name leaves its cell");
  auto name = NameFromBytes(cell->bytes().subspan(sizeof(KeyRecord), name_bytes),
                            (flags & kKeyNameIsLatin1) != 0);
  if (!name.ok()) return refuse(name.status().message());
  if (record.class_bytes.value() != 0) {
    ++classes_;
    const absl::StatusOr<Record> class_name =
        cells_.Claim(record.class_offset.value(), "class name");
    if (!class_name.ok()) return class_name.status();
    if (!class_name->Holds(0, record.class_bytes.value())) {
      return refuse("its class name leaves its cell");
    }
  }
  ++security_users_[record.security_offset.value()];
  return std::pair(record, *std::move(name));
}

absl::Status Reader::ReadKey(const Work& work) {
  if (absl::Status status = ReadValues(work); !status.ok()) return status;
  const uint32_t count = work.record.subkey_count.value();
  if (count > 0) {
    const auto keys = ReadList(work.record.subkey_list_offset.value(), count);
    if (!keys.ok()) return keys.status();
    const std::u16string* former_name = nullptr;
    for (const ListedKey& listed : *keys) {
      auto key = ReadKeyRecord(listed.offset, work.offset);
      if (!key.ok()) return key.status();
      const auto& [record, name] = *key;
      if (!HintFits(listed, name)) {
        return RefuseAt(
            "list of subkeys", listed.list_offset,
            absl::StrCat("its hint 0x", absl::Hex(listed.hint), " is not that of the key at 0x",
                         absl::Hex(uint64_t{listed.offset} + kBaseBlockBytes)));
      }
      if (former_name != nullptr && CompareNames(*former_name, name) >= 0) {
        return RefuseAt("key", listed.offset, "it is not in the order of names");
      }
      const auto id = tree_->AddKey(work.id, name);
      if (!id.ok()) {
        return RefuseAt("key", listed.offset, id.status().message());
      }
      former_name = &tree_->key(*id).name;
      work_.push_back({.id = *id, .offset = listed.offset, .record = record});
    }
  } else if (work.record.subkey_list_offset.value() != kNoCell) {
    return RefuseAt("key", work.offset, "it has a list of subkeys and no subkeys");
  }
  return CheckMaxima(work);
}

// Windows sizes its buffers by these: they may be too large, never too small.
absl::Status Reader::CheckMaxima(const Work& work) const {
  const RegistryTree::Key& key = tree_->key(work.id);
  size_t subkey_name_units = 0;
  for (const KeyId subkey : key.subkeys) {
    subkey_name_units = std::max(subkey_name_units, tree_->key(subkey).name.size());
  }
  size_t value_name_units = 0;
  size_t value_bytes = 0;
  for (const RegistryValue& value : key.values) {
    value_name_units = std::max(value_name_units, value.name.size());
    value_bytes = std::max(value_bytes, value.data.size());
  }
  if (subkey_name_units * sizeof(char16_t) > work.record.subkey_name_bytes_max.value() ||
      value_name_units * sizeof(char16_t) > work.record.value_name_bytes_max.value() ||
      value_bytes > work.record.value_data_bytes_max.value()) {
    return RefuseAt("key", work.offset, "a maximum of its names or data is too small");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ListedKey>> Reader::ReadList(uint32_t offset, uint32_t count) {
  const absl::StatusOr<Record> list = cells_.Claim(offset, "list of subkeys");
  if (!list.ok()) return list.status();
  const auto refuse = [offset](absl::string_view why) {
    return RefuseAt("list of subkeys", offset, why);
  };
  if (!list->Holds(0, sizeof(ListHeader))) return refuse("its cell is too small");
  const auto header = list->At<ListHeader>(0);
  std::vector<ListedKey> keys;
  if (header.signature.value() != kIndexRootSignature) {
    if (absl::Status status = ReadLeaf(*list, count, keys); !status.ok()) return status;
  } else {
    const size_t leaf_count = header.count.value();
    if (!list->Holds(sizeof(ListHeader), leaf_count * sizeof(U32))) {
      return refuse("its elements leave its cell");
    }
    for (size_t i = 0; i < leaf_count; ++i) {
      const uint32_t leaf_offset = list->At<U32>(sizeof(ListHeader) + i * sizeof(U32)).value();
      const absl::StatusOr<Record> leaf = cells_.Claim(leaf_offset, "list of subkeys");
      if (!leaf.ok()) return leaf.status();
      if (absl::Status status = ReadLeaf(*leaf, count, keys); !status.ok()) return status;
    }
  }
  if (keys.size() != count) {
    return refuse(absl::StrCat("it has ", keys.size(), " keys; its key says ", count));
  }
  return keys;
}

// `keys_max`: no more keys than their parent says, in all leaves together.
absl::Status Reader::ReadLeaf(const Record& leaf, size_t keys_max,
                              std::vector<ListedKey>& keys) const {
  const auto refuse = [&leaf](absl::string_view why) {
    return RefuseAt("list of subkeys", leaf.offset(), why);
  };
  if (!leaf.Holds(0, sizeof(ListHeader))) return refuse("its cell is too small");
  const auto header = leaf.At<ListHeader>(0);
  const uint16_t signature = header.signature.value();
  const bool hinted = signature == kHashLeafSignature || signature == kFastLeafSignature;
  if (!hinted && signature != kIndexLeafSignature) {
    return refuse("its signature is none of `lh`, `lf`, `li`");
  }
  const size_t count = header.count.value();
  const size_t element_bytes = hinted ? sizeof(HashLeafElement) : sizeof(U32);
  if (count == 0) return refuse("it is empty");
  if (!leaf.Holds(sizeof(ListHeader), count * element_bytes)) {
    return refuse("its elements leave its cell");
  }
  if (count > keys_max - std::min(keys_max, keys.size())) {
    return refuse("it has more keys than their parent says");
  }
  for (size_t i = 0; i < count; ++i) {
    const size_t position = sizeof(ListHeader) + i * element_bytes;
    keys.push_back({.offset = leaf.At<U32>(position).value(),
                    .list_signature = signature,
                    .hint = hinted ? leaf.At<U32>(position + sizeof(U32)).value() : 0,
                    .list_offset = leaf.offset()});
  }
  return absl::OkStatus();
}

absl::Status Reader::ReadValues(const Work& work) {
  const uint32_t count = work.record.value_count.value();
  const uint32_t list_offset = work.record.value_list_offset.value();
  if (count == 0) {
    if (list_offset == kNoCell) return absl::OkStatus();
    return RefuseAt("key", work.offset, "it has a list of values and no values");
  }
  const absl::StatusOr<Record> list = cells_.Claim(list_offset, "list of values");
  if (!list.ok()) return list.status();
  if (!list->Holds(0, size_t{count} * sizeof(U32))) {
    return RefuseAt("list of values", list_offset,
                    absl::StrCat(count, " values do not fit its cell"));
  }
  for (size_t i = 0; i < count; ++i) {
    const uint32_t offset = list->At<U32>(i * sizeof(U32)).value();
    absl::StatusOr<RegistryValue> value = ReadValue(cells_, offset);
    if (!value.ok()) return value.status();
    if (absl::Status status = tree_->AddValue(work.id, *std::move(value)); !status.ok()) {
      return RefuseAt("value", offset, status.message());
    }
  }
  return absl::OkStatus();
}

// All descriptors that keys use lie on one circle, each with its number of users.
absl::Status Reader::ReadSecurity() {
  std::map<uint32_t, SecurityRecord> records;
  for (const auto& [offset, users] : security_users_) {
    const auto refuse = [at = offset](absl::string_view why) {
      return RefuseAt("security descriptor", at, why);
    };
    const absl::StatusOr<Record> cell = cells_.Claim(offset, "security descriptor");
    if (!cell.ok()) return cell.status();
    if (!cell->Holds(0, sizeof(SecurityRecord))) return refuse("its cell is too small");
    const auto record = cell->At<SecurityRecord>(0);
    if (record.signature.value() != kSecuritySignature) return refuse("its signature is not `sk`");
    if (record.reference_count.value() != users) {
      return refuse(
          absl::StrCat("it counts ", record.reference_count.value(), " users and has ", users));
    }
    const size_t bytes = record.descriptor_bytes.value();
    if (!cell->Holds(sizeof(SecurityRecord), bytes)) return refuse("it leaves its cell");
    const absl::Status status =
        CheckSecurityDescriptor(cell->bytes().subspan(sizeof(SecurityRecord), bytes));
    if (!status.ok()) {
      return refuse(status.message());
    }
    records.emplace(offset, record);
  }
  uint32_t offset = records.begin()->first;
  for (size_t visited = 1; visited <= records.size(); ++visited) {
    const uint32_t next = records.at(offset).next_offset.value();
    const auto following = records.find(next);
    if (following == records.end() || following->second.previous_offset.value() != offset) {
      return RefuseAt("security descriptor", offset, "its links do not lead to the next and back");
    }
    if ((next == records.begin()->first) != (visited == records.size())) {
      return RefuseAt("security descriptor", offset, "its links leave some out");
    }
    offset = next;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HiveReading> ReadHive(std::span<const std::byte> file) {
  absl::StatusOr<HiveCells> cells = HiveCells::Parse(file);
  if (!cells.ok()) return cells.status();
  return Reader(*std::move(cells)).Read();
}

}  // namespace vmbfs::hive
