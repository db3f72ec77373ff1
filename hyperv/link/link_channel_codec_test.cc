#include "hyperv/link/link_channel_codec.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::byte> Bytes(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

const std::vector<std::byte> kGpadlAdd = Bytes({
    5, 0, 0, 0, 0x10, 0x0E, 0x0E, 0,     // channel, gpadl
    1, 0, 0, 0, 2,    0,    0,    0,     // ranges, pages
    1, 2, 3, 4, 0,    0,    0,    0,     // page frame 0x04030201
    0, 0, 0, 0, 0,    0,    0,    0x80,  // page frame 1 << 63
});

// OPEN of channel 5, each field with a value of its own.
std::vector<std::byte> Open() {
  std::vector<std::byte> open = Bytes({
      5, 0, 0, 0, 77, 0, 0, 0,  // channel, open id
      9, 0, 0, 0, 17, 0, 0, 0,  // ring GPADL, downstream page offset
      3, 0, 0, 0, 0,  0, 0, 0,  // target VP, flags
      3, 0, 5, 0, 4,  0, 0, 0,  // VMBus 5.3, feature flags
  });
  open.resize(168);
  return open;
}

void CheckSizes(const char* name, const std::vector<std::byte>& payload,
                const std::function<absl::Status(std::span<const std::byte>)>& parse) {
  SCOPED_TRACE(name);
  EXPECT_TRUE(parse(payload).ok());
  for (size_t bytes = 0; bytes < payload.size(); ++bytes) {
    EXPECT_TRUE(absl::IsInvalidArgument(parse(std::span(payload).first(bytes)))) << bytes;
  }
  std::vector<std::byte> longer = payload;
  longer.push_back(std::byte{0});
  EXPECT_TRUE(absl::IsInvalidArgument(parse(longer)));
}

TEST(LinkChannelCodec, EveryTruncationAndExtensionIsRefused) {
  const std::vector<std::byte> two_words = Bytes({7, 0, 0, 0, 0, 0, 0, 0});
  CheckSizes("OFFER reply", std::vector<std::byte>(16),
             [](auto payload) { return ParseOfferOk(payload).status(); });
  CheckSizes("GPADL_ADD", kGpadlAdd,
             [](auto payload) { return ParseGpadlAdd(payload, 0).status(); });
  CheckSizes("GPADL_ADD with a memfd", Bytes({5, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0x91, 1, 0, 0}),
             [](auto payload) { return ParseGpadlAdd(payload, 1).status(); });
  CheckSizes("GPADL_DEL", two_words, [](auto payload) { return ParseGpadlDel(payload).status(); });
  CheckSizes("OPEN", Open(), [](auto payload) { return ParseOpen(payload, 2).status(); });
  CheckSizes("MODIFY", two_words, [](auto payload) { return ParseModify(payload).status(); });
  CheckSizes("CLOSE", two_words,
             [](auto payload) { return ParseChannel("CLOSE", payload).status(); });
  CheckSizes("MSG_SEND reply", std::vector<std::byte>(8),
             [](auto payload) { return ParseMsgSendResult(payload).status(); });
}

TEST(LinkChannelCodec, GpadlAddIsParsed) {
  const auto add = ParseGpadlAdd(kGpadlAdd, 0);
  ASSERT_TRUE(add.ok()) << add.status();
  EXPECT_EQ(add->channel, 5u);
  EXPECT_EQ(add->gpadl, 0xE0E10u);
  EXPECT_EQ(add->range_count, 1u);
  EXPECT_THAT(add->page_frames, ElementsAre(0x04030201u, uint64_t{1} << 63));
}

TEST(LinkChannelCodec, GpadlAddHasItsListInOnePlaceOnly) {
  EXPECT_FALSE(ParseGpadlAdd(kGpadlAdd, 1).ok());
  const auto with_pages = [](uint32_t pages, size_t list_pages, size_t descriptors) {
    LinkGpadlAddWire wire{};
    wire.pages = pages;
    std::vector<std::byte> payload(sizeof(wire) + list_pages * 8);
    std::memcpy(payload.data(), &wire, sizeof(wire));
    return ParseGpadlAdd(payload, descriptors).ok();
  };
  EXPECT_TRUE(with_pages(400, 400, 0));
  EXPECT_FALSE(with_pages(400, 0, 1));
  EXPECT_FALSE(with_pages(401, 401, 0));
  EXPECT_FALSE(with_pages(401, 0, 0));
  EXPECT_TRUE(with_pages(401, 0, 1));
  EXPECT_TRUE(with_pages(0xFFFFFFFF, 0, 1));  // its receiver has the bound
}

TEST(LinkChannelCodec, OpenIsParsed) {
  const auto open = ParseOpen(Open(), 2);
  ASSERT_TRUE(open.ok()) << open.status();
  EXPECT_EQ(open->channel, 5u);
  EXPECT_EQ(open->ring_gpadl, 9u);
  EXPECT_EQ(open->downstream_page_offset, 17u);
  EXPECT_EQ(open->target_vp, 3u);
  EXPECT_EQ(open->flags, 0u);
}

TEST(LinkChannelCodec, OpenHasAThirdDescriptorAndAPlaceWithDirectEventOnly) {
  std::vector<std::byte> open = Open();
  EXPECT_FALSE(ParseOpen(open, 3).ok());
  for (const size_t offset : {152u, 156u, 160u}) {
    std::vector<std::byte> placed = Open();
    placed[offset] = std::byte{1};
    EXPECT_FALSE(ParseOpen(placed, 2).ok()) << offset;
    placed[20] = std::byte{2};
    EXPECT_TRUE(ParseOpen(placed, 3).ok()) << offset;
  }
  open[20] = std::byte{2};
  EXPECT_FALSE(ParseOpen(open, 2).ok());
  EXPECT_TRUE(ParseOpen(open, 3).ok());
}

TEST(LinkChannelCodec, ReservedFieldsMustBeZeroAndResultsExist) {
  const std::vector<std::byte> reserved_set = Bytes({0, 0, 0, 0, 0, 0, 0, 1});
  EXPECT_FALSE(ParseChannel("RELEASE", reserved_set).ok());
  EXPECT_FALSE(ParseMsgSendResult(reserved_set).ok());
  EXPECT_FALSE(ParseOfferOk(Bytes({1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0})).ok());
  EXPECT_EQ(*ParseMsgSendResult(Bytes({2, 0, 0, 0, 0, 0, 0, 0})), LinkMsgResult::kNoMessagePage);
  EXPECT_FALSE(ParseMsgSendResult(Bytes({3, 0, 0, 0, 0, 0, 0, 0})).ok());
}

TEST(LinkChannelCodec, FramesAreBuiltAsThePageSays) {
  const auto payload = [](const std::vector<std::byte>& frame) {
    return std::vector<std::byte>(frame.begin() + kLinkHeaderBytes, frame.end());
  };
  EXPECT_EQ(payload(BuildRevoke(1, 0x0506)), Bytes({6, 5, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(payload(BuildEventGet(1, 3, 2, 0x0102)),
            Bytes({3, 0, 0, 0, 2, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0}));
  const std::vector<std::byte> send = payload(BuildMsgSend(1, 0x0A, 3, 2, Bytes({0xEE})));
  ASSERT_EQ(send.size(), 264u);
  EXPECT_EQ(
      std::vector(send.begin(), send.begin() + 26),
      Bytes({0x0A, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0xEE, 0}));
  LinkHeader open;
  open.rule = FindLinkType(static_cast<uint32_t>(LinkType::kOpen));
  open.seq = 9;
  const std::vector<std::byte> result = BuildResult(open, 0x8000FFFF);
  EXPECT_EQ(result[0], std::byte{0x52});
  EXPECT_EQ(result[4], std::byte{1});   // REPLY
  EXPECT_EQ(result[16], std::byte{9});  // the request's seq
  EXPECT_EQ(payload(result), Bytes({0xFF, 0xFF, 0, 0x80, 0, 0, 0, 0}));

  ChannelOffer offer;
  offer.interface_id.bytes[0] = std::byte{0x11};
  offer.instance_id.bytes[15] = std::byte{0x22};
  offer.flags = 0x2010;
  offer.subchannel_index = 3;
  offer.user_defined[119] = std::byte{0x33};
  offer.monitored = true;
  std::vector<std::byte> expected(168);
  expected[0] = std::byte{0x11};
  expected[31] = std::byte{0x22};
  expected[32] = std::byte{0x10};
  expected[33] = std::byte{0x20};
  expected[34] = std::byte{3};
  expected[40] = std::byte{1};
  expected[167] = std::byte{0x33};
  EXPECT_EQ(payload(BuildOffer(1, offer)), expected);
}

TEST(LinkChannelCodec, PageFramesComeFromASealedMemfdOnly) {
  UniqueFd fd(::memfd_create("list", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const std::vector<std::byte> list = Bytes({1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0});
  ASSERT_EQ(::write(fd.get(), list.data(), list.size()), 16);
  EXPECT_THAT(std::string(ReadPageFrames(fd, 2).status().message()), HasSubstr("sealed"));
  ASSERT_EQ(::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), 0);
  EXPECT_THAT(*ReadPageFrames(fd, 2), ElementsAre(1, 0x200));
  EXPECT_TRUE(absl::IsInvalidArgument(ReadPageFrames(fd, 3).status()));
}

}  // namespace
}  // namespace vmbfs::hyperv
