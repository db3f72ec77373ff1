// The guest's end of an open channel in tests of the link.

#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hyperv/guest_memory/guest_memory.h"
#include "hyperv/link/test_vmm.h"
#include "hyperv/ring/incoming_ring.h"
#include "hyperv/ring/outgoing_ring.h"
#include "hyperv/ring/ring_memory.h"

namespace vmbfs::hyperv {

// The guest's view of the ring pages.
//
// Thread safety: one thread, the test's; the server has ends of its own.
class GuestRings {
 public:
  explicit GuestRings(const TestVmmBase& vmm) {
    EXPECT_TRUE(memory_
                    .AddRegion({.id = 1,
                                .gpa = TestVmmBase::kRingGpa,
                                .bytes = TestVmmBase::kRingPages * 4096,
                                .file_offset = 0},
                               UniqueFd(::dup(vmm.ring_fd())))
                    .ok());
    std::vector<uint64_t> frames;
    for (uint64_t i = 0; i < TestVmmBase::kRingPages; ++i) {
      frames.push_back((TestVmmBase::kRingGpa >> 12) + i);
    }
    const std::span<const uint64_t> all = frames;
    to_host_.emplace(*OutgoingRing::Open(*RingMemory::Map(memory_, all.first(5))));
    from_host_.emplace(*IncomingRing::Open(*RingMemory::Map(memory_, all.subspan(5))));
    EXPECT_FALSE(*from_host_->Arm());
  }

  void Write(const std::string& text) {
    EXPECT_TRUE(*to_host_->Reserve(text.size()));
    to_host_->CopyIn(0, std::as_bytes(std::span(text)));
    to_host_->Commit(text.size());
    (void)to_host_->Publish();
  }
  // The next packet's text, padding cut; empty when there is none.
  std::string Read(size_t bytes) {
    std::array<std::byte, 1024> buffer;
    const auto packet = from_host_->Read(buffer);
    if (!packet.ok() || !packet->has_value()) return {};
    (void)from_host_->Consume();
    EXPECT_FALSE(*from_host_->Arm());
    return {reinterpret_cast<const char*>(buffer.data()), bytes};
  }

 private:
  GuestMemory memory_;
  std::optional<OutgoingRing> to_host_;
  std::optional<IncomingRing> from_host_;
};

}  // namespace vmbfs::hyperv
