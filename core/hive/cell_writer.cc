#include "core/hive/cell_writer.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace vmbfs::hive {
namespace {

constexpr size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

template <typename Wire>
void Put(std::vector<std::byte>& file, size_t position, const Wire& wire) {
  const auto bytes = std::bit_cast<std::array<std::byte, sizeof(Wire)>>(wire);
  std::copy(bytes.begin(), bytes.end(), file.begin() + static_cast<ptrdiff_t>(position));
}

// A negative size marks a cell in use.
U32 CellHeader(size_t cell_bytes, bool used) {
  const auto size = static_cast<int32_t>(cell_bytes);
  return U32(static_cast<uint32_t>(used ? -size : size));
}

}  // namespace

absl::StatusOr<uint32_t> CellWriter::Allocate(size_t record_bytes) {
  if (record_bytes > bins_bytes_max_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a record of ", record_bytes, " bytes; the hive may have ", bins_bytes_max_));
  }
  const size_t cell_bytes = RoundUp(kCellHeaderBytes + record_bytes, kCellUnitBytes);
  if (cell_bytes > file_.size() - next_cell_) {
    const size_t bin_bytes = RoundUp(sizeof(BinHeader) + cell_bytes, kBinUnitBytes);
    const size_t bins_bytes = file_.size() - kBaseBlockBytes;
    if (bin_bytes > bins_bytes_max_ - bins_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the hive gets larger than ", kBaseBlockBytes + bins_bytes_max_, " bytes"));
    }
    EndBin();
    BinHeader header{};
    for (size_t i = 0; i < 4; ++i) header.signature[i] = static_cast<uint8_t>("hbin"[i]);
    header.offset = static_cast<uint32_t>(bins_bytes);
    header.bytes = static_cast<uint32_t>(bin_bytes);
    next_cell_ = file_.size() + sizeof(BinHeader);
    file_.resize(file_.size() + bin_bytes);
    Put(file_, next_cell_ - sizeof(BinHeader), header);
  }
  const size_t cell = next_cell_;
  next_cell_ += cell_bytes;
  Put(file_, cell, CellHeader(cell_bytes, true));
  return static_cast<uint32_t>(cell - kBaseBlockBytes);
}

void CellWriter::Write(uint32_t cell_offset, size_t record_offset,
                       std::span<const std::byte> bytes) {
  const size_t position = kBaseBlockBytes + cell_offset + kCellHeaderBytes + record_offset;
  if (position > next_cell_ || bytes.size() > next_cell_ - position) std::abort();
  std::copy(bytes.begin(), bytes.end(), file_.begin() + static_cast<ptrdiff_t>(position));
}

void CellWriter::EndBin() {
  const size_t free_bytes = file_.size() - next_cell_;
  if (free_bytes > 0) Put(file_, next_cell_, CellHeader(free_bytes, false));
}

std::vector<std::byte> CellWriter::Finish() && {
  EndBin();
  return std::move(file_);
}

}  // namespace vmbfs::hive
