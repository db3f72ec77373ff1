// GPA-direct registrations for pipe_fuzz: set-ups as a guest may send them, and
// what must become of them (shared/specs/vmbus.md 3.7 and 5.3), in a plain map.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "hyperv/fuzz_input/fuzz_input.h"
#include "hyperv/pipe/gpa_direct_table.h"
#include "hyperv/pipe/pipe_fuzz_guest.h"

namespace vmbfs::hyperv {

class TableModel {
 public:
  // --- what the guest sends: mostly in order, any field may be wrong ---

  static std::vector<std::byte> TakeTearDown(FuzzInput& input) {
    std::vector<std::byte> data;
    Append(data, TakeHandle(input), 4);
    if (input.OneIn(16)) data.resize(input.U8() % 16);
    return data;
  }

  static std::vector<std::byte> TakeSetUp(FuzzInput& input, uint64_t seed) {
    std::vector<std::byte> data;
    Append(data, TakeHandle(input), 4);
    const uint8_t options = input.U8();
    Append(data, options % 4 == 0 ? 0 : options, 1);
    const uint64_t ranges = options >= 240 ? options % 4 : 1 + options / 4 % 3;
    Append(data, options >= 248 ? options : ranges, 4);
    for (uint64_t i = 0; i < ranges; ++i) {
      const uint64_t pages = input.OneIn(4) ? input.U16() % 1'900 : 1 + input.U8() % 4u;
      const uint64_t offset = input.OneIn(2) ? input.U16() % 4'100u : 0;
      const uint64_t end = pages * 4'096 - input.U8();
      Append(data, input.OneIn(32) ? input.U32() : end - offset, 4);
      Append(data, offset, 4);
      for (uint64_t page = 0; page < pages; ++page) Append(data, seed << 16 | page, 8);
    }
    if (input.OneIn(16)) data.resize(data.size() + input.U8() % 17);
    return data;
  }

  // --- what becomes of it; false: it is malformed ---

  bool SetUp(std::span<const std::byte> data) {
    if (data.size() < 9) return false;
    Buffer buffer{.writable = data[4] != std::byte{0}, .pages = {}};
    size_t at = 9;
    const uint64_t ranges = NumberOf(data.subspan(5, 4));
    if (ranges == 0) return false;
    for (uint64_t i = 0; i < ranges; ++i) {
      if (data.size() - at < 8) return false;
      const uint64_t bytes = NumberOf(data.subspan(at, 4));
      const uint64_t offset = NumberOf(data.subspan(at + 4, 4));
      at += 8;
      if (bytes == 0 || offset > 4'095 || bytes + offset + 4'095 > 0xFFFFFFFF) return false;
      for (uint64_t page = 0; page * 4'096 < offset + bytes; ++page) {
        if (data.size() - at < 8) return false;
        const uint64_t from = page == 0 ? offset : 0;
        const uint64_t to = std::min<uint64_t>(4'096, offset + bytes - page * 4'096);
        buffer.pages.emplace_back(NumberOf(data.subspan(at, 8)), from, to);
        at += 8;
      }
    }
    if (at != data.size()) return false;
    const auto handle = static_cast<uint32_t>(NumberOf(data.first(4)));
    buffers_.erase(handle);
    if (buffers_.size() == 64 || buffer.pages.size() > 1'794 ||
        page_count() + buffer.pages.size() > 16'384) {
      ++refused_;
    } else {
      buffers_.emplace(handle, std::move(buffer));
    }
    return true;
  }

  bool TearDown(std::span<const std::byte> data) {
    if (data.size() != 4) return false;
    if (buffers_.erase(static_cast<uint32_t>(NumberOf(data))) == 0) ++unknown_tear_downs_;
    return true;
  }

  // --- and what the table says of it ---

  void CheckCounts(const GpaDirectTable& table) const {
    Require(table.count() == buffers_.size() && table.page_count() == page_count(),
            "the table has the buffers that stand");
    Require(table.refused() == refused_, "those that are too much are counted");
    Require(table.unknown_tear_downs() == unknown_tear_downs_, "and strange tear-downs");
  }

  // Some part of some buffer is found or refused, to the byte.
  void CheckPart(FuzzInput& input, const GpaDirectTable& table) const {
    const uint32_t handle = TakeHandle(input);
    const uint64_t offset = input.OneIn(16) ? input.U64() : input.U16();
    const uint64_t bytes = input.OneIn(16) ? input.U64() : input.U16();
    auto found = table.FindWritable(handle, offset, bytes);
    const auto buffer = buffers_.find(handle);
    if (buffer == buffers_.end()) {
      return Require(absl::IsNotFound(found.status()), "an unknown handle is refused");
    }
    if (!buffer->second.writable) {
      return Require(absl::IsPermissionDenied(found.status()), "one to read from as well");
    }
    uint64_t size = 0;
    for (const auto& [frame, from, to] : buffer->second.pages) size += to - from;
    if (offset > size || bytes > size - offset) {
      return Require(absl::IsOutOfRange(found.status()), "and what is beyond the buffer");
    }
    Require(found.ok(), "what is in the buffer is found");
    Require(PagesOf(*std::move(found)) == Part(buffer->second.pages, offset, bytes),
            "exactly its pages");
  }

 private:
  using Page = std::tuple<uint64_t, uint64_t, uint64_t>;  // frame, first byte, end
  struct Buffer {
    bool writable = false;
    std::vector<Page> pages;
  };

  static uint32_t TakeHandle(FuzzInput& input) {
    const uint8_t choice = input.U8();
    return choice < 128 ? choice % 4u : choice;
  }

  static std::vector<Page> Part(const std::vector<Page>& pages, uint64_t offset, uint64_t bytes) {
    std::vector<Page> part;
    for (const auto& [frame, from, to] : pages) {
      const uint64_t skipped = std::min(offset, to - from);
      const uint64_t taken = std::min(bytes, to - from - skipped);
      if (taken > 0) part.emplace_back(frame, from + skipped, from + skipped + taken);
      offset -= skipped;
      bytes -= taken;
    }
    return part;
  }

  static std::vector<Page> PagesOf(GpaDirectPart part) {
    std::vector<Page> pages;
    while (const std::optional<PageRange> range = part.Next()) {
      Require(range->byte_count > 0 && range->byte_offset < 4'096, "a range of bytes");
      const uint64_t end = uint64_t{range->byte_offset} + range->byte_count;
      Require(range->page_frames.size() == (end + 4'095) / 4'096,
              "of as many pages as they are in");
      for (uint64_t page = 0; page < range->page_frames.size(); ++page) {
        pages.emplace_back(range->page_frames[page], page == 0 ? range->byte_offset : 0,
                           std::min<uint64_t>(4'096, end - page * 4'096));
      }
    }
    return pages;
  }

  size_t page_count() const {
    size_t count = 0;
    for (const auto& [handle, buffer] : buffers_) count += buffer.pages.size();
    return count;
  }

  std::map<uint32_t, Buffer> buffers_;
  uint64_t refused_ = 0;
  uint64_t unknown_tear_downs_ = 0;
};

}  // namespace vmbfs::hyperv
