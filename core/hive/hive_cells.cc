#include "core/hive/hive_cells.h"

#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/hive/hive_checksum.h"

namespace vmbfs::hive {
namespace {

constexpr uint32_t kSignatureAsNumber = 0x66676572;  // "regf"

template <size_t size>
bool Is(const U8 (&bytes)[size], const char* text) {
  for (size_t i = 0; i < size; ++i) {
    if (bytes[i].value() != static_cast<uint8_t>(text[i])) return false;
  }
  return true;
}

// `position` is the field's.
absl::Status RefuseBase(size_t position, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("base block at 0x", absl::Hex(position), ": ", why));
}

absl::Status CheckBase(const BaseBlock& base, size_t file_bytes) {
  if (!Is(base.signature, "regf")) {
    if (base.primary_sequence.value() == kSignatureAsNumber) {
      return RefuseBase(
          offsetof(BaseBlock, signature),
          "it begins after 4 bytes: this is a hive behind a length, as Hyper-V's "
          "SetInitialMachineConfigurationData takes it; a guest takes the hive alone");
    }
    return RefuseBase(offsetof(BaseBlock, signature), "its signature is not `regf`");
  }
  const uint32_t checksum = ChecksumOf(base);
  if (base.checksum.value() != checksum) {
    return RefuseBase(offsetof(BaseBlock, checksum),
                      absl::StrCat("its checksum is 0x", absl::Hex(base.checksum.value()),
                                   ", not 0x", absl::Hex(checksum)));
  }
  if (base.primary_sequence.value() != base.secondary_sequence.value()) {
    return RefuseBase(offsetof(BaseBlock, secondary_sequence),
                      "its sequence numbers differ: a log has to be replayed first");
  }
  const uint32_t minor = base.minor.value();
  if (base.major.value() != kVersionMajor || minor < kVersionMinorMin || minor > kVersionMinorMax) {
    return RefuseBase(offsetof(BaseBlock, major), absl::StrCat("version ", base.major.value(), ".",
                                                               minor, " is none of 1.3 to 1.6"));
  }
  if (base.file_type.value() != 0) {
    return RefuseBase(offsetof(BaseBlock, file_type), "it is no primary file");
  }
  if (base.format.value() != 1) {
    return RefuseBase(offsetof(BaseBlock, format), "its format is not 1");
  }
  if (base.clustering_factor.value() != 1) {
    return RefuseBase(offsetof(BaseBlock, clustering_factor), "its clustering factor is not 1");
  }
  const size_t bins_bytes = base.bins_bytes.value();
  if (bins_bytes == 0 || bins_bytes % kBinUnitBytes != 0 || bins_bytes > kBinsBytesMax) {
    return RefuseBase(offsetof(BaseBlock, bins_bytes),
                      absl::StrCat("bins of ", bins_bytes, " bytes"));
  }
  if (bins_bytes > file_bytes - kBaseBlockBytes) {
    return RefuseBase(offsetof(BaseBlock, bins_bytes),
                      absl::StrCat("bins of ", bins_bytes, " bytes in a file that has ",
                                   file_bytes - kBaseBlockBytes, " for them"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RefuseAt(absl::string_view what, uint32_t cell_offset, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, " at 0x", absl::Hex(uint64_t{cell_offset} + kBaseBlockBytes), ": ", why));
}

absl::StatusOr<HiveCells> HiveCells::Parse(std::span<const std::byte> file) {
  if (file.size() < kBaseBlockBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a file of ", file.size(),
                                                   " bytes; a hive has at least ",
                                                   kBaseBlockBytes + kBinUnitBytes));
  }
  HiveCells cells;
  std::memcpy(&cells.base_, file.data(), sizeof(cells.base_));
  if (absl::Status status = CheckBase(cells.base_, file.size()); !status.ok()) return status;
  cells.bins_ = file.subspan(kBaseBlockBytes, cells.base_.bins_bytes.value());
  cells.trailing_bytes_ = file.size() - kBaseBlockBytes - cells.bins_.size();
  size_t bin_bytes = 0;
  for (size_t bin = 0; bin < cells.bins_.size(); bin += bin_bytes) {
    if (absl::Status status = cells.ParseBin(bin, bin_bytes); !status.ok()) return status;
  }
  return cells;
}

// `bin_offset` is a multiple of kBinUnitBytes below the size of the bins.
absl::Status HiveCells::ParseBin(size_t bin_offset, size_t& bin_bytes) {
  const auto offset = static_cast<uint32_t>(bin_offset);
  const BinHeader header =
      Record(offset, bins_.subspan(bin_offset, kBinUnitBytes)).At<BinHeader>(0);
  if (!Is(header.signature, "hbin")) return RefuseAt("bin", offset, "its signature is not `hbin`");
  if (header.offset.value() != bin_offset) {
    return RefuseAt("bin", offset,
                    absl::StrCat("it says that it lies at offset ", header.offset.value()));
  }
  bin_bytes = header.bytes.value();
  if (bin_bytes == 0 || bin_bytes % kBinUnitBytes != 0 || bin_bytes > bins_.size() - bin_offset) {
    return RefuseAt("bin", offset, absl::StrCat("its size is ", bin_bytes));
  }
  for (size_t position = sizeof(BinHeader); position < bin_bytes;) {
    const auto cell_offset = static_cast<uint32_t>(bin_offset + position);
    const auto size = static_cast<int32_t>(
        Record(cell_offset, bins_.subspan(cell_offset, sizeof(U32))).At<U32>(0).value());
    // Negative: in use. As 64 bits, since the smallest has no positive.
    const uint64_t cell_bytes = static_cast<uint64_t>(size < 0 ? -int64_t{size} : int64_t{size});
    if (cell_bytes == 0 || cell_bytes % kCellUnitBytes != 0) {
      return RefuseAt("cell", cell_offset,
                      absl::StrCat("its size is ", cell_bytes, ", no multiple of 8 above 0"));
    }
    if (cell_bytes > bin_bytes - position) {
      return RefuseAt("cell", cell_offset,
                      absl::StrCat("its size is ", cell_bytes, ", which leaves its bin"));
    }
    cells_.push_back(
        {.offset = cell_offset, .bytes = static_cast<uint32_t>(cell_bytes), .in_use = size < 0});
    in_use_ += size < 0 ? 1 : 0;
    position += cell_bytes;
  }
  return absl::OkStatus();
}

absl::StatusOr<Record> HiveCells::Claim(uint32_t offset, absl::string_view what) {
  const auto found =
      std::lower_bound(cells_.begin(), cells_.end(), offset,
                       [](const Cell& cell, uint32_t wanted) { return cell.offset < wanted; });
  if (found == cells_.end() || found->offset != offset) {
    return RefuseAt(what, offset, "no cell begins there");
  }
  if (!found->in_use) return RefuseAt(what, offset, "its cell is free");
  if (found->claimed) return RefuseAt(what, offset, "its cell is used twice");
  found->claimed = true;
  ++claimed_;
  return Record(offset,
                bins_.subspan(size_t{offset} + kCellHeaderBytes, found->bytes - kCellHeaderBytes));
}

}  // namespace vmbfs::hive
