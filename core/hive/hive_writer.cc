#include "core/hive/hive_writer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/hive/cell_writer.h"
#include "core/hive/data_text.h"
#include "core/hive/hive_checksum.h"
#include "core/hive/hive_format.h"
#include "core/hive/security_descriptor.h"

namespace vmbfs::hive {
namespace {

using KeyId = RegistryTree::KeyId;

bool IsLatin1(std::u16string_view name) {
  return std::all_of(name.begin(), name.end(), [](char16_t unit) { return unit < 0x100; });
}

bool IsAscii(std::u16string_view name) {
  return std::all_of(name.begin(), name.end(), [](char16_t unit) { return unit < 0x80; });
}

// A name as a record stores it.
std::vector<std::byte> StoredName(std::u16string_view name) {
  std::vector<std::byte> bytes;
  const bool latin1 = IsLatin1(name);
  bytes.reserve(name.size() * (latin1 ? 1 : 2));
  for (const char16_t unit : name) {
    bytes.push_back(static_cast<std::byte>(unit & 0xFF));
    if (!latin1) bytes.push_back(static_cast<std::byte>(unit >> 8));
  }
  return bytes;
}

constexpr size_t NameBytes(std::u16string_view name) { return name.size() * sizeof(char16_t); }

// Lays a tree out breadth first; of each key the record, its values, then the
// list of its subkeys, whose offsets are filled in as the subkeys come.
class Layout {
 public:
  Layout(const RegistryTree& tree, const HiveWriteOptions& options)
      : tree_(tree), options_(options), cells_(BinsBytesMax(options)) {
    offsets_.resize(tree.key_count(), kNoCell);
    list_slots_.resize(tree.key_count());
  }

  absl::StatusOr<WrittenHive> Write();

 private:
  // Where a list holds a key's offset.
  struct Slot {
    uint32_t cell_offset = kNoCell;
    size_t record_offset = 0;
  };

  static size_t BinsBytesMax(const HiveWriteOptions& options) {
    const size_t file_bytes_max = std::max(options.hive_bytes_max, kBaseBlockBytes);
    const size_t bins_bytes_max = file_bytes_max - kBaseBlockBytes;
    return std::min<size_t>(bins_bytes_max / kBinUnitBytes * kBinUnitBytes, kBinsBytesMax);
  }

  absl::Status WriteKey(KeyId id);
  absl::StatusOr<uint32_t> WriteSecurity();
  absl::StatusOr<uint32_t> WriteValues(KeyId id);
  absl::StatusOr<uint32_t> WriteValue(KeyId id, const RegistryValue& value);
  absl::StatusOr<uint32_t> WriteData(const std::vector<std::byte>& data);
  absl::StatusOr<uint32_t> WriteSubkeys(const std::vector<KeyId>& subkeys);
  absl::StatusOr<uint32_t> WriteLeaf(std::span<const KeyId> subkeys);
  void NoteUnusual(size_t& count, const char* what, KeyId id);
  BaseBlock MakeBaseBlock(size_t bins_bytes) const;

  const RegistryTree& tree_;
  const HiveWriteOptions& options_;
  CellWriter cells_;
  std::vector<uint32_t> offsets_;  // of key records
  std::vector<Slot> list_slots_;   // of keys, but for the root
  std::vector<KeyId> order_;       // breadth first
  uint32_t security_offset_ = kNoCell;
  size_t names_beyond_ascii_ = 0;
  size_t values_of_big_data_ = 0;
  size_t keys_of_many_subkeys_ = 0;
  std::vector<std::string> warnings_;  // the first of each kind
};

absl::StatusOr<WrittenHive> Layout::Write() {
  order_.reserve(tree_.key_count());
  order_.push_back(RegistryTree::kRoot);
  for (size_t next = 0; next < order_.size(); ++next) {
    if (absl::Status status = WriteKey(order_[next]); !status.ok()) return status;
  }
  WrittenHive hive{.bytes = std::move(cells_).Finish(), .warnings = std::move(warnings_)};
  const BaseBlock base = MakeBaseBlock(hive.bytes.size() - kBaseBlockBytes);
  std::memcpy(hive.bytes.data(), &base, sizeof(base));
  return hive;
}

absl::Status Layout::WriteKey(KeyId id) {
  const RegistryTree::Key& key = tree_.key(id);
  const bool root = id == RegistryTree::kRoot;
  const std::vector<std::byte> name = StoredName(key.name);
  const absl::StatusOr<uint32_t> offset = cells_.Allocate(sizeof(KeyRecord) + name.size());
  if (!offset.ok()) return offset.status();
  offsets_[static_cast<size_t>(id)] = *offset;
  if (!root) {
    const Slot& slot = list_slots_[static_cast<size_t>(id)];
    cells_.WriteRecord(slot.cell_offset, slot.record_offset, U32(*offset));
  }
  if (!IsAscii(key.name)) NoteUnusual(names_beyond_ascii_, "a name beyond ASCII", id);
  if (root) {
    const absl::StatusOr<uint32_t> security = WriteSecurity();
    if (!security.ok()) return security.status();
    security_offset_ = *security;
  }
  const absl::StatusOr<uint32_t> values = WriteValues(id);
  if (!values.ok()) return values.status();
  const std::vector<KeyId> subkeys = tree_.SortedSubkeys(id);
  const absl::StatusOr<uint32_t> list = WriteSubkeys(subkeys);
  if (!list.ok()) return list.status();
  if (subkeys.size() > kHashLeafElementsMax) {
    NoteUnusual(keys_of_many_subkeys_, "more than 507 subkeys", id);
  }
  order_.insert(order_.end(), subkeys.begin(), subkeys.end());

  KeyRecord record{};
  record.signature = kKeySignature;
  record.flags = IsLatin1(key.name) ? kKeyNameIsLatin1 : uint16_t{0};
  record.last_written = options_.key_filetime;
  record.parent_offset = root ? kNoCell : offsets_[static_cast<size_t>(key.parent)];
  record.subkey_count = static_cast<uint32_t>(subkeys.size());
  record.subkey_list_offset = *list;
  record.volatile_subkey_list_offset = kNoCell;
  record.value_count = static_cast<uint32_t>(key.values.size());
  record.value_list_offset = *values;
  record.security_offset = security_offset_;
  record.class_offset = kNoCell;
  size_t subkey_name_bytes_max = 0;
  for (const KeyId subkey : subkeys) {
    subkey_name_bytes_max = std::max(subkey_name_bytes_max, NameBytes(tree_.key(subkey).name));
  }
  record.subkey_name_bytes_max = static_cast<uint16_t>(subkey_name_bytes_max);
  size_t value_name_bytes_max = 0;
  size_t value_data_bytes_max = 0;
  for (const RegistryValue& value : key.values) {
    value_name_bytes_max = std::max(value_name_bytes_max, NameBytes(value.name));
    value_data_bytes_max = std::max(value_data_bytes_max, value.data.size());
  }
  record.value_name_bytes_max = static_cast<uint32_t>(value_name_bytes_max);
  record.value_data_bytes_max = static_cast<uint32_t>(value_data_bytes_max);
  record.name_bytes = static_cast<uint16_t>(name.size());
  cells_.WriteRecord(*offset, 0, record);
  cells_.Write(*offset, sizeof(record), name);
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> Layout::WriteSecurity() {
  const auto descriptor = MakeSecurityDescriptor();
  const absl::StatusOr<uint32_t> offset =
      cells_.Allocate(sizeof(SecurityRecord) + descriptor.size());
  if (!offset.ok()) return offset;
  SecurityRecord record{};
  record.signature = kSecuritySignature;
  record.next_offset = *offset;  // a circle of one
  record.previous_offset = *offset;
  record.reference_count = static_cast<uint32_t>(tree_.key_count());
  record.descriptor_bytes = static_cast<uint32_t>(descriptor.size());
  cells_.WriteRecord(*offset, 0, record);
  cells_.Write(*offset, sizeof(record), descriptor);
  return offset;
}

absl::StatusOr<uint32_t> Layout::WriteValues(KeyId id) {
  const std::vector<RegistryValue>& values = tree_.key(id).values;
  if (values.empty()) return kNoCell;
  const absl::StatusOr<uint32_t> list = cells_.Allocate(values.size() * sizeof(U32));
  if (!list.ok()) return list;
  for (size_t i = 0; i < values.size(); ++i) {
    const absl::StatusOr<uint32_t> value = WriteValue(id, values[i]);
    if (!value.ok()) return value;
    cells_.WriteRecord(*list, i * sizeof(U32), U32(*value));
  }
  return list;
}

absl::StatusOr<uint32_t> Layout::WriteValue(KeyId id, const RegistryValue& value) {
  if (value.data.size() > options_.value_bytes_max) {
    return absl::InvalidArgumentError(absl::StrCat("value ", ValuePathText(tree_, id, value),
                                                   " has ", value.data.size(), " bytes; at most ",
                                                   options_.value_bytes_max, " are allowed"));
  }
  if (!IsAscii(value.name)) NoteUnusual(names_beyond_ascii_, "a name beyond ASCII", id);
  if (value.data.size() > kPlainDataBytesMax) {
    NoteUnusual(values_of_big_data_, "a value above 16,344 bytes", id);
  }
  const std::vector<std::byte> name = StoredName(value.name);
  const absl::StatusOr<uint32_t> offset = cells_.Allocate(sizeof(ValueRecord) + name.size());
  if (!offset.ok()) return offset;
  ValueRecord record{};
  record.signature = kValueSignature;
  record.name_bytes = static_cast<uint16_t>(name.size());
  record.type = static_cast<uint32_t>(value.type);
  record.flags = !name.empty() && IsLatin1(value.name) ? kValueNameIsLatin1 : uint16_t{0};
  record.data_bytes = static_cast<uint32_t>(value.data.size());
  if (value.data.size() <= kInlineDataBytesMax) {
    record.data_bytes = kDataInline | static_cast<uint32_t>(value.data.size());
    uint32_t inline_data = 0;
    for (size_t i = 0; i < value.data.size(); ++i) {
      inline_data |= std::to_integer<uint32_t>(value.data[i]) << (8 * i);
    }
    record.data_offset = inline_data;
  } else {
    const absl::StatusOr<uint32_t> data = WriteData(value.data);
    if (!data.ok()) return data;
    record.data_offset = *data;
  }
  cells_.WriteRecord(*offset, 0, record);
  cells_.Write(*offset, sizeof(record), name);
  return offset;
}

absl::StatusOr<uint32_t> Layout::WriteData(const std::vector<std::byte>& data) {
  const std::span<const std::byte> bytes(data);
  if (bytes.size() <= kPlainDataBytesMax) {
    const absl::StatusOr<uint32_t> cell = cells_.Allocate(bytes.size());
    if (cell.ok()) cells_.Write(*cell, 0, bytes);
    return cell;
  }
  const size_t segment_count = (bytes.size() + kPlainDataBytesMax - 1) / kPlainDataBytesMax;
  if (segment_count > UINT16_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat("a value of ", bytes.size(), " bytes is more than the format can hold"));
  }
  const absl::StatusOr<uint32_t> big_data = cells_.Allocate(sizeof(BigDataRecord));
  if (!big_data.ok()) return big_data;
  const absl::StatusOr<uint32_t> list = cells_.Allocate(segment_count * sizeof(U32));
  if (!list.ok()) return list;
  for (size_t i = 0; i < segment_count; ++i) {
    const size_t start = i * kPlainDataBytesMax;
    const auto segment = bytes.subspan(start, std::min(kPlainDataBytesMax, bytes.size() - start));
    const absl::StatusOr<uint32_t> cell = cells_.Allocate(segment.size() + kSegmentSpareBytes);
    if (!cell.ok()) return cell;
    cells_.Write(*cell, 0, segment);
    cells_.WriteRecord(*list, i * sizeof(U32), U32(*cell));
  }
  BigDataRecord record{};
  record.signature = kBigDataSignature;
  record.segment_count = static_cast<uint16_t>(segment_count);
  record.list_offset = *list;
  cells_.WriteRecord(*big_data, 0, record);
  return big_data;
}

absl::StatusOr<uint32_t> Layout::WriteSubkeys(const std::vector<KeyId>& subkeys) {
  if (subkeys.empty()) return kNoCell;
  if (subkeys.size() <= kHashLeafElementsMax) return WriteLeaf(subkeys);
  const size_t leaf_count = (subkeys.size() + kHashLeafElementsMax - 1) / kHashLeafElementsMax;
  if (leaf_count > UINT16_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat("a key with ", subkeys.size(), " subkeys is more than the format can hold"));
  }
  const absl::StatusOr<uint32_t> root =
      cells_.Allocate(sizeof(ListHeader) + leaf_count * sizeof(U32));
  if (!root.ok()) return root;
  ListHeader header{};
  header.signature = kIndexRootSignature;
  header.count = static_cast<uint16_t>(leaf_count);
  cells_.WriteRecord(*root, 0, header);
  for (size_t i = 0; i < leaf_count; ++i) {
    const size_t start = i * kHashLeafElementsMax;
    const absl::StatusOr<uint32_t> leaf = WriteLeaf(
        std::span(subkeys).subspan(start, std::min(kHashLeafElementsMax, subkeys.size() - start)));
    if (!leaf.ok()) return leaf;
    cells_.WriteRecord(*root, sizeof(header) + i * sizeof(U32), U32(*leaf));
  }
  return root;
}

absl::StatusOr<uint32_t> Layout::WriteLeaf(std::span<const KeyId> subkeys) {
  const absl::StatusOr<uint32_t> leaf =
      cells_.Allocate(sizeof(ListHeader) + subkeys.size() * sizeof(HashLeafElement));
  if (!leaf.ok()) return leaf;
  ListHeader header{};
  header.signature = kHashLeafSignature;
  header.count = static_cast<uint16_t>(subkeys.size());
  cells_.WriteRecord(*leaf, 0, header);
  for (size_t i = 0; i < subkeys.size(); ++i) {
    const size_t position = sizeof(header) + i * sizeof(HashLeafElement);
    list_slots_[static_cast<size_t>(subkeys[i])] = {.cell_offset = *leaf,
                                                    .record_offset = position};
    HashLeafElement element{};
    element.key_offset = kNoCell;  // until the subkey has its place
    element.hash = HashKeyName(tree_.key(subkeys[i]).name);
    cells_.WriteRecord(*leaf, position, element);
  }
  return leaf;
}

// One warning of each kind: where it was first.
void Layout::NoteUnusual(size_t& count, const char* what, KeyId id) {
  if (count++ > 0) return;
  const std::string path = KeyPathText(tree_, id);
  warnings_.push_back(absl::StrCat(what, " (key ", path.empty() ? "at the root" : path,
                                   "): Microsoft's own hives have none; not tried on Windows"));
}

BaseBlock Layout::MakeBaseBlock(size_t bins_bytes) const {
  BaseBlock base{};
  for (size_t i = 0; i < 4; ++i) base.signature[i] = static_cast<uint8_t>("regf"[i]);
  base.primary_sequence = uint32_t{1};
  base.secondary_sequence = uint32_t{1};
  base.major = kVersionMajor;
  base.minor = kVersionMinorWritten;
  base.format = uint32_t{1};
  base.root_offset = kRootOffset;
  base.bins_bytes = static_cast<uint32_t>(bins_bytes);
  base.clustering_factor = uint32_t{1};
  if (options_.offline_registry_filetime.has_value()) {
    for (size_t i = 0; i < 4; ++i) base.writer_mark[i] = static_cast<uint8_t>("OfRg"[i]);
    base.writer_mark_version = uint32_t{1};
    base.serialised = *options_.offline_registry_filetime;
  }
  base.checksum = ChecksumOf(base);
  return base;
}

}  // namespace

absl::StatusOr<WrittenHive> WriteHive(const RegistryTree& tree, const HiveWriteOptions& options) {
  return Layout(tree, options).Write();
}

}  // namespace vmbfs::hive
