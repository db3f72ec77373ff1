#include "hyperv/pipe/gpa_direct_table.h"

#include <algorithm>
#include <array>
#include <boost/endian/conversion.hpp>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "hyperv/pipe/pipe_format.h"

namespace vmbfs::hyperv {
namespace {

constexpr size_t kWordsMax = (kPipeDataBytesMax - sizeof(GpaDirectSetUp)) / sizeof(uint64_t);

// Reads the ranges behind a SETUP's header. They are what a GPADL is made of,
// 64-bit words, but begin at an odd offset.
absl::StatusOr<PageRanges> ParseRanges(std::span<const std::byte> bytes, size_t range_count) {
  if (bytes.size() % sizeof(uint64_t) != 0 || bytes.size() / sizeof(uint64_t) > kWordsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("GPA-direct set-up: ranges of ", bytes.size(), " bytes"));
  }
  std::array<uint64_t, kWordsMax> buffer;
  const auto words = std::span(buffer).first(bytes.size() / sizeof(uint64_t));
  if (!bytes.empty()) std::memcpy(words.data(), bytes.data(), bytes.size());
  for (uint64_t& word : words) boost::endian::little_to_native_inplace(word);

  absl::StatusOr<PageRanges> ranges = PageRanges::Parse(words, range_count);
  if (!ranges.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("GPA-direct set-up: ", ranges.status().message()));
  }
  if (ranges->word_count() != words.size()) {
    return absl::InvalidArgumentError(absl::StrCat("GPA-direct set-up: ", words.size(),
                                                   " words, of which its ranges take ",
                                                   ranges->word_count()));
  }
  return ranges;
}

uint64_t BytesOf(const PageRanges& ranges) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < ranges.range_count(); ++i) bytes += ranges.range(i).byte_count;
  return bytes;
}

}  // namespace

absl::Status GpaDirectTable::SetUp(std::span<const std::byte> data) {
  GpaDirectSetUp header;
  if (data.size() < sizeof(header)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "GPA-direct set-up is ", data.size(), " bytes; at least ", sizeof(header), " are needed"));
  }
  std::memcpy(&header, data.data(), sizeof(header));
  absl::StatusOr<PageRanges> ranges =
      ParseRanges(data.subspan(sizeof(header)), header.range_count.value());
  if (!ranges.ok()) return ranges.status();

  // The guest has given the old buffer up in any case.
  const uint32_t handle = header.handle.value();
  Erase(handle);
  if (!Fits(*ranges)) {
    ++refused_;
    return absl::OkStatus();
  }
  page_count_ += ranges->page_count();
  const uint64_t byte_count = BytesOf(*ranges);
  registrations_.emplace(handle, Registration{.writable = header.writable.value() != 0,
                                              .byte_count = byte_count,
                                              .ranges = *std::move(ranges)});
  return absl::OkStatus();
}

absl::Status GpaDirectTable::TearDown(std::span<const std::byte> data) {
  GpaDirectTearDown message;
  if (data.size() != sizeof(message)) {
    return absl::InvalidArgumentError(
        absl::StrCat("GPA-direct tear-down is ", data.size(), " bytes; it has ", sizeof(message)));
  }
  std::memcpy(&message, data.data(), sizeof(message));
  if (!Erase(message.handle.value())) ++unknown_tear_downs_;
  return absl::OkStatus();
}

absl::StatusOr<GpaDirectPart> GpaDirectTable::FindWritable(uint32_t handle, uint64_t offset,
                                                           uint64_t byte_count) const {
  const auto found = registrations_.find(handle);
  if (found == registrations_.end()) {
    return absl::NotFoundError(absl::StrCat("no buffer is registered as ", handle));
  }
  const Registration& registration = found->second;
  if (!registration.writable) {
    return absl::PermissionDeniedError(
        absl::StrCat("the buffer registered as ", handle, " is not writable"));
  }
  if (offset > registration.byte_count || byte_count > registration.byte_count - offset) {
    return absl::OutOfRangeError(absl::StrCat(byte_count, " bytes at offset ", offset,
                                              " of the buffer registered as ", handle,
                                              ", which has ", registration.byte_count));
  }
  return GpaDirectPart(registration.ranges, offset, byte_count);
}

bool GpaDirectTable::Fits(const PageRanges& ranges) const {
  return registrations_.size() < kRegistrationsMax && ranges.page_count() <= kPagesOfOneMax &&
         ranges.page_count() <= kPagesMax - page_count_;
}

bool GpaDirectTable::Erase(uint32_t handle) {
  const auto found = registrations_.find(handle);
  if (found == registrations_.end()) return false;
  page_count_ -= found->second.ranges.page_count();
  registrations_.erase(found);
  return true;
}

GpaDirectPart::GpaDirectPart(const PageRanges& ranges, uint64_t offset, uint64_t byte_count)
    : ranges_(&ranges), skipped_bytes_(offset), left_bytes_(byte_count) {
  while (left_bytes_ > 0 && skipped_bytes_ >= ranges.range(index_).byte_count) {
    skipped_bytes_ -= ranges.range(index_++).byte_count;
  }
}

std::optional<PageRange> GpaDirectPart::Next() {
  if (left_bytes_ == 0) return std::nullopt;
  const PageRange range = ranges_->range(index_++);
  const uint64_t start = range.byte_offset + std::exchange(skipped_bytes_, 0);
  const uint64_t end =
      std::min(start + left_bytes_, uint64_t{range.byte_offset} + range.byte_count);
  left_bytes_ -= end - start;
  const uint64_t first_page = start / PageRanges::kPageBytes;
  const uint64_t end_page = (end - 1) / PageRanges::kPageBytes + 1;
  return PageRange{.byte_count = static_cast<uint32_t>(end - start),
                   .byte_offset = static_cast<uint32_t>(start % PageRanges::kPageBytes),
                   .page_frames = range.page_frames.subspan(first_page, end_page - first_page)};
}

}  // namespace vmbfs::hyperv
