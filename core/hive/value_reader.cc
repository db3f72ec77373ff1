#include "core/hive/value_reader.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/hive/hive_format.h"
#include "core/hive/utf16.h"

namespace vmbfs::hive {
namespace {

using Data = std::vector<std::byte>;

void Append(Data& data, std::span<const std::byte> bytes) {
  data.insert(data.end(), bytes.begin(), bytes.end());
}

absl::StatusOr<Data> ReadInline(uint32_t offset, const ValueRecord& record) {
  const size_t bytes = record.data_bytes.value() & ~kDataInline;
  if (bytes > kInlineDataBytesMax) {
    return RefuseAt("value", offset, absl::StrCat(bytes, " bytes of data within its record"));
  }
  Data data(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    data[i] = static_cast<std::byte>(record.data_offset.value() >> (8 * i));
  }
  return data;
}

absl::StatusOr<Data> ReadSegments(HiveCells& cells, const Record& record, size_t data_bytes) {
  const uint32_t offset = record.offset();
  const auto refuse = [offset](absl::string_view why) { return RefuseAt("big data", offset, why); };
  if (!record.Holds(0, sizeof(BigDataRecord))) return refuse("its cell is too small");
  const auto big_data = record.At<BigDataRecord>(0);
  if (big_data.signature.value() != kBigDataSignature) return refuse("its signature is not `db`");
  const size_t segments = (data_bytes + kPlainDataBytesMax - 1) / kPlainDataBytesMax;
  if (big_data.segment_count.value() != segments) {
    return refuse(absl::StrCat("it has ", big_data.segment_count.value(), " segments; ", data_bytes,
                               " bytes take ", segments));
  }
  const absl::StatusOr<Record> list = cells.Claim(big_data.list_offset.value(), "list of segments");
  if (!list.ok()) return list.status();
  if (!list->Holds(0, segments * sizeof(U32))) return refuse("its list leaves its cell");
  Data data;
  for (size_t i = 0; i < segments; ++i) {
    const uint32_t segment_offset = list->At<U32>(i * sizeof(U32)).value();
    const absl::StatusOr<Record> segment = cells.Claim(segment_offset, "segment of data");
    if (!segment.ok()) return segment.status();
    const size_t bytes = std::min(kPlainDataBytesMax, data_bytes - data.size());
    if (!segment->Holds(0, bytes)) {
      return RefuseAt("segment of data", segment_offset, "its data leaves its cell");
    }
    Append(data, segment->bytes().first(bytes));
  }
  return data;
}

absl::StatusOr<Data> ReadData(HiveCells& cells, uint32_t offset, const ValueRecord& record) {
  const uint32_t data_bytes = record.data_bytes.value();
  if ((data_bytes & kDataInline) != 0) return ReadInline(offset, record);
  const uint32_t data_offset = record.data_offset.value();
  if (data_bytes == 0) {
    if (data_offset == kNoCell) return Data();
    return RefuseAt("value", offset, "it has no data and says where that is");
  }
  const absl::StatusOr<Record> cell = cells.Claim(data_offset, "data");
  if (!cell.ok()) return cell.status();
  if (data_bytes > kPlainDataBytesMax && cells.minor() >= kVersionMinorBigData) {
    return ReadSegments(cells, *cell, data_bytes);
  }
  if (!cell->Holds(0, data_bytes)) {
    return RefuseAt("data", data_offset, absl::StrCat(data_bytes, " bytes do not fit its cell"));
  }
  Data data;
  Append(data, cell->bytes().first(data_bytes));
  return data;
}

}  // namespace

absl::StatusOr<std::u16string> NameFromBytes(std::span<const std::byte> bytes, bool latin1) {
  if (latin1) {
    std::u16string name;
    for (const std::byte byte : bytes) name.push_back(std::to_integer<char16_t>(byte));
    return name;
  }
  std::optional<std::u16string> name = UnitsFromBytes(bytes);
  if (name.has_value()) return *std::move(name);
  return absl::InvalidArgumentError("its name has an odd number of bytes");
}

absl::StatusOr<RegistryValue> ReadValue(HiveCells& cells, uint32_t offset) {
  const auto refuse = [offset](absl::string_view why) { return RefuseAt("value", offset, why); };
  const absl::StatusOr<Record> cell = cells.Claim(offset, "value");
  if (!cell.ok()) return cell.status();
  if (!cell->Holds(0, sizeof(ValueRecord))) return refuse("its cell is too small");
  const auto record = cell->At<ValueRecord>(0);
  if (record.signature.value() != kValueSignature) return refuse("its signature is not `vk`");
  const uint16_t flags = record.flags.value();
  if ((flags & ~kValueNameIsLatin1) != 0) {
    return refuse(absl::StrCat("its flags are 0x", absl::Hex(flags)));
  }
  const size_t name_bytes = record.name_bytes.value();
  if (!cell->Holds(sizeof(ValueRecord), name_bytes)) return refuse("its name leaves its cell");
  absl::StatusOr<std::u16string> name = NameFromBytes(
      cell->bytes().subspan(sizeof(ValueRecord), name_bytes), (flags & kValueNameIsLatin1) != 0);
  if (!name.ok()) {
    return refuse(name.status().message());
  }
  absl::StatusOr<Data> data = ReadData(cells, offset, record);
  if (!data.ok()) return data.status();
  return RegistryValue{.name = *std::move(name),
                       .type = static_cast<ValueType>(record.type.value()),
                       .data = *std::move(data)};
}

}  // namespace vmbfs::hive
