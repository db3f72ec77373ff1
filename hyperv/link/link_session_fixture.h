// Frames over a real socket, for tests of what is answered, refused, or ends the
// connection.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "hyperv/link/link_harness.h"
#include "hyperv/link/test_frames.h"

namespace vmbfs::hyperv {

// A HELLO of minor, level and delivery modes.
inline std::vector<std::byte> Hello(int minor, int level, int modes) {
  std::vector<std::byte> hello = HelloPayload(1);
  hello[2] = static_cast<std::byte>(minor);
  hello[4] = static_cast<std::byte>(level);
  hello[36] = static_cast<std::byte>(modes);
  return hello;
}

inline constexpr uint32_t kHello = 0x564C0001;
inline constexpr uint32_t kMemAdd = 0x564C0002;
inline constexpr uint32_t kStart = 0x564C0004;

class LinkSessionTest : public ::testing::Test {
 protected:
  // A connection that said HELLO and got its answer.
  UniqueFd Greeted() {
    UniqueFd socket = ConnectTo(harness_.path());
    SendBytes(socket, FrameBytes(kHello, 0, 0, 1, HelloPayload(2)));
    const auto reply = ReceiveFrame(socket);
    EXPECT_TRUE(reply && reply->type == LinkType::kHello && !reply->error());
    return socket;
  }

  // Expects an ERROR with `text`, then the end.
  void ExpectEnd(const UniqueFd& socket, const std::string& text, uint32_t code = 1) {
    const auto error = ReceiveFrame(socket);
    ASSERT_TRUE(error.has_value());
    EXPECT_TRUE(error->error());
    EXPECT_EQ(error->error_code(), code);
    EXPECT_THAT(error->error_text(), ::testing::HasSubstr(text));
    EXPECT_FALSE(ReceiveFrame(socket).has_value());
    EXPECT_TRUE(harness_.WaitForStatus([](const LinkStatus& status) { return !status.connected; }));
    EXPECT_THAT(harness_.status().last_error, ::testing::HasSubstr(text));
  }

  static std::vector<std::byte> Region(uint32_t id, uint64_t gpa, uint64_t bytes,
                                       uint64_t file_offset = 0, uint32_t flags = 0) {
    LinkMemAddWire wire{};
    wire.id = id;
    wire.flags = flags;
    wire.gpa = gpa;
    wire.bytes = bytes;
    wire.file_offset = file_offset;
    const auto span = WireBytes(wire);
    return {span.begin(), span.end()};
  }

  LinkHarness harness_;
};

}  // namespace vmbfs::hyperv
