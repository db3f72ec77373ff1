#include "hyperv/link/link_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

namespace vmbfs::hyperv {
namespace {

using ::testing::HasSubstr;

std::vector<std::byte> Bytes(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

std::vector<std::byte> Concat(std::vector<std::byte> a, const std::vector<std::byte>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// A header's bytes: type number, flags, nfds, length, reserved, seq 0x0102.
std::vector<std::byte> Header(int number, int flags, int nfds, int length, int reserved = 0,
                              int magic_low = 0x4C) {
  return Bytes({number,      0, magic_low, 0x56,     flags, 0, nfds, 0, length & 0xFF,
                length >> 8, 0, 0,         reserved, 0,     0, 0,    2, 1,
                0,           0, 0,         0,        0,     0});
}

absl::StatusOr<LinkHeader> Parse(const std::vector<std::byte>& bytes) {
  return ParseLinkHeader(std::span<const std::byte, kLinkHeaderBytes>(bytes));
}

std::string Refusal(const std::vector<std::byte>& bytes) {
  const auto header = Parse(bytes);
  return header.ok() ? "accepted" : std::string(header.status().message());
}

const std::vector<std::byte> kHello = Bytes({
    1,    0,    0,  0,  1,   0,   0,   0,         // major, minor, level
    0xFF, 0,    0,  0,  0,   0,   0,   0,         // features
    0xA0, 0xA1, 2,  3,  4,   5,   6,   7,         // UUID
    8,    9,    10, 11, 12,  13,  14,  0xAF,      //
    4,    0,    0,  0,  3,   0,   0,   0,         // VPs, delivery modes
    5,    0,    0,  0,  'w', 'e', 'b', '-',  '7'  // label
});
const std::vector<std::byte> kMemAdd = Bytes({
    7, 0,    0, 0, 0, 0, 0, 0,  // id, flags
    0, 0x10, 0, 0, 1, 0, 0, 0,  // gpa 0x100001000
    0, 0x20, 0, 0, 0, 0, 0, 0,  // bytes
    0, 0x30, 0, 0, 0, 0, 0, 0,  // file offset
});
const std::vector<std::byte> kSynic = Bytes({
    3,    0,    0, 0, 0, 0, 0, 0,  // vp
    1,    0,    0, 0, 0, 0, 0, 0,  // SCONTROL
    1,    0x20, 0, 0, 0, 0, 0, 0,  // SIEFP
    1,    0x10, 0, 0, 0, 0, 0, 0,  // SIMP
    0x41, 0,    1, 0, 0, 0, 0, 0,  // SINT2
});

TEST(LinkCodec, HeaderOfReplyWithDescriptorsIsParsed) {
  const auto header = Parse(Header(0x30, 1, 2, 0));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->type(), LinkType::kSintGet);
  EXPECT_TRUE(header->reply);
  EXPECT_FALSE(header->error);
  EXPECT_FALSE(header->wants_answer());
  EXPECT_EQ(header->descriptor_count, 2);
  EXPECT_EQ(header->seq, 0x0102u);
}

TEST(LinkCodec, AnswerIsWantedWithNeedAckOrByType) {
  EXPECT_TRUE(Parse(Header(0x05, 0, 0, 0))->wants_answer());   // PAUSE (r)
  EXPECT_FALSE(Parse(Header(0x04, 0, 0, 0))->wants_answer());  // START
  EXPECT_TRUE(Parse(Header(0x04, 2, 0, 0))->wants_answer());
}

TEST(LinkCodec, IllegalHeadersAreRefusedWithTheRule) {
  EXPECT_THAT(Refusal(Header(0x04, 0, 0, 0, 0, 0x4D)), HasSubstr("does not begin with 0x564c"));
  EXPECT_THAT(Refusal(Header(0x1F, 0, 0, 0)), HasSubstr("unknown"));
  EXPECT_THAT(Refusal(Header(0x04, 8, 0, 0)), HasSubstr("flags"));
  EXPECT_THAT(Refusal(Header(0x30, 3, 1, 0)), HasSubstr("flags"));  // REPLY and NEED_ACK
  EXPECT_THAT(Refusal(Header(0x04, 4, 0, 0)), HasSubstr("flags"));  // ERROR alone
  EXPECT_THAT(Refusal(Header(0x04, 0, 0, 0, 1)), HasSubstr("reserved"));
  EXPECT_THAT(Refusal(Header(0x04, 0, 0, 4073)), HasSubstr("at most 4072"));
  EXPECT_THAT(Refusal(Header(0x30, 0, 0, 8)), HasSubstr("not for a VMM"));  // SINT_GET asked of us
  EXPECT_THAT(Refusal(Header(0x02, 1, 0, 0)), HasSubstr("not for a VMM"));  // reply to MEM_ADD
  EXPECT_THAT(Refusal(Header(0x02, 0, 0, 32)), HasSubstr("descriptors"));
  EXPECT_THAT(Refusal(Header(0x02, 0, 2, 32)), HasSubstr("descriptors"));
  EXPECT_THAT(Refusal(Header(0x30, 1, 0, 0)), HasSubstr("descriptors"));
  EXPECT_THAT(Refusal(Header(0x30, 5, 1, 8)), HasSubstr("descriptors"));  // ERROR with descriptor
  EXPECT_EQ(Refusal(Header(0x04, 0, 0, 4072)), "accepted");
  EXPECT_EQ(Refusal(Header(0x52, 0, 3, 168)), "accepted");  // reserved: OPEN
}

TEST(LinkCodec, HelloIsParsed) {
  const auto hello = ParseHello(kHello);
  ASSERT_TRUE(hello.ok()) << hello.status();
  EXPECT_EQ(hello->level, 1u);
  EXPECT_EQ(hello->features, 0xFFu);
  EXPECT_EQ(hello->vm_uuid[0], std::byte{0xA0});
  EXPECT_EQ(hello->vm_uuid[15], std::byte{0xAF});
  EXPECT_EQ(hello->vp_count, 4u);
  EXPECT_EQ(hello->delivery_modes, 3u);
  EXPECT_EQ(hello->label, "web-7");
}

TEST(LinkCodec, HelloOfOtherMajorOrVpsOrLabelLengthIsRefused) {
  const auto changed = [](size_t offset, int value) {
    std::vector<std::byte> bytes = kHello;
    bytes[offset] = static_cast<std::byte>(value);
    return ParseHello(bytes);
  };
  EXPECT_THAT(std::string(changed(0, 2).status().message()), HasSubstr("major"));
  EXPECT_THAT(std::string(changed(32, 0).status().message()), HasSubstr("VPs"));
  EXPECT_THAT(std::string(changed(33, 0x10).status().message()), HasSubstr("VPs"));  // 4,100
  EXPECT_THAT(std::string(changed(40, 4).status().message()), HasSubstr("label"));
  EXPECT_THAT(std::string(changed(40, 129).status().message()), HasSubstr("label"));
  EXPECT_TRUE(changed(2, 9).ok());  // a later minor is welcome
}

TEST(LinkCodec, MemAddAndSynicAreParsed) {
  const auto add = ParseMemAdd(kMemAdd);
  ASSERT_TRUE(add.ok());
  EXPECT_EQ(add->region.id, 7u);
  EXPECT_EQ(add->region.gpa, 0x100001000u);
  EXPECT_EQ(add->region.bytes, 0x2000u);
  EXPECT_EQ(add->region.file_offset, 0x3000u);
  const auto synic = ParseSynic(kSynic);
  ASSERT_TRUE(synic.ok());
  EXPECT_EQ(synic->vp, 3u);
  EXPECT_EQ(synic->scontrol, 1u);
  EXPECT_EQ(synic->siefp, 0x2001u);
  EXPECT_EQ(synic->simp, 0x1001u);
  EXPECT_EQ(synic->sint2, 0x10041u);
}

TEST(LinkCodec, PostKeepsAnOverlongSizeForItsReceiver) {
  std::vector<std::byte> bytes =
      Bytes({9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0});
  bytes.resize(264, std::byte{0x5A});
  const auto post = ParsePost(bytes);
  ASSERT_TRUE(post.ok());
  EXPECT_EQ(post->post_seq, 9u);
  EXPECT_EQ(post->vp, 1u);
  EXPECT_EQ(post->connection, 4u);
  EXPECT_EQ(post->type, 1u);
  EXPECT_EQ(post->size, 256u);
  EXPECT_EQ(post->payload[239], std::byte{0x5A});
}

// Each parser takes its payload, and neither a shorter nor a longer one.
TEST(LinkCodec, EveryTruncationAndExtensionIsRefused) {
  const auto check = [](const char* name, const std::vector<std::byte>& payload,
                        const std::function<absl::Status(std::span<const std::byte>)>& parse) {
    SCOPED_TRACE(name);
    EXPECT_TRUE(parse(payload).ok());
    for (size_t bytes = 0; bytes < payload.size(); ++bytes) {
      EXPECT_TRUE(absl::IsInvalidArgument(parse(std::span(payload).first(bytes)))) << bytes;
    }
    EXPECT_TRUE(absl::IsInvalidArgument(parse(Concat(payload, Bytes({0})))));
  };
  const std::vector<std::byte> two_words = Bytes({7, 0, 0, 0, 0, 0, 0, 0});
  check("HELLO", kHello, [](auto payload) { return ParseHello(payload).status(); });
  check("MEM_ADD", kMemAdd, [](auto payload) { return ParseMemAdd(payload).status(); });
  check("MEM_DEL", two_words, [](auto payload) { return ParseMemDel(payload).status(); });
  check("SYNIC", kSynic, [](auto payload) { return ParseSynic(payload).status(); });
  check("POST", std::vector<std::byte>(264),
        [](auto payload) { return ParsePost(payload).status(); });
  check("SIGNAL", two_words, [](auto payload) { return ParseSignal(payload).status(); });
  check("EOM", two_words, [](auto payload) { return ParseEom(payload).status(); });
  check("RESET", two_words, [](auto payload) { return ParseReset(payload).status(); });
  check("empty", {}, [](auto payload) { return ParseEmpty(payload); });
}

TEST(LinkCodec, ReservedFieldsMustBeZeroAndSintsExist) {
  const std::vector<std::byte> reserved_set = Bytes({7, 0, 0, 0, 0, 0, 0, 1});
  EXPECT_FALSE(ParseMemDel(reserved_set).ok());
  EXPECT_FALSE(ParseSignal(reserved_set).ok());
  EXPECT_FALSE(ParseReset(reserved_set).ok());
  std::vector<std::byte> synic = kSynic;
  synic[4] = std::byte{1};
  EXPECT_FALSE(ParseSynic(synic).ok());
  EXPECT_TRUE(ParseEom(Bytes({0, 0, 0, 0, 15, 0, 0, 0})).ok());
  EXPECT_FALSE(ParseEom(Bytes({0, 0, 0, 0, 16, 0, 0, 0})).ok());
}

TEST(LinkCodec, ErrorReplyGivesItsEscapedTextAndRefusesBadLengths) {
  const std::vector<std::byte> reply = Bytes({3, 0, 0, 0, 3, 0, 0, 0, 'n', '\n', 'o'});
  const absl::Status status = ParseErrorReply(reply);
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("code 3"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("n\\no"));
  for (size_t bytes = 0; bytes < reply.size(); ++bytes) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseErrorReply(std::span(reply).first(bytes))));
  }
}

TEST(LinkCodec, FramesAreBuiltAsThePageSays) {
  EXPECT_EQ(BuildReply(LinkType::kPause, 0x0102), Header(0x05, 1, 0, 0));
  EXPECT_EQ(BuildError(LinkType::kMemAdd, 0x0102, LinkError::kRefused, "no"),
            Concat(Header(0x02, 5, 0, 10), Bytes({3, 0, 0, 0, 2, 0, 0, 0, 'n', 'o'})));
  EXPECT_EQ(BuildHelloOk(0x0102, {.minor = 1, .level = 1, .delivery_mode = 1}),
            Concat(Header(0x01, 1, 0, 24), Bytes({1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0,
                                                  0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0})));
  EXPECT_EQ(BuildSintGet(0x0102, 5, 2),
            Concat(Header(0x30, 0, 0, 8), Bytes({5, 0, 0, 0, 2, 0, 0, 0})));
  EXPECT_EQ(BuildConnSet(0x0102, 0x2001),
            Concat(Header(0x31, 0, 1, 8), Bytes({1, 0x20, 0, 0, 0, 0, 0, 0})));
  EXPECT_EQ(BuildConnClr(0x0102, 0x2001),
            Concat(Header(0x32, 0, 0, 8), Bytes({1, 0x20, 0, 0, 0, 0, 0, 0})));
  EXPECT_EQ(BuildPostAck(0x0102, 9),
            Concat(Header(0x33, 0, 0, 8), Bytes({9, 0, 0, 0, 0, 0, 0, 0})));
}

TEST(LinkCodec, LongErrorTextIsCut) {
  EXPECT_EQ(BuildError(LinkType::kHello, 0, LinkError::kProtocol, std::string(5000, 'x')).size(),
            kLinkHeaderBytes + 8 + kLinkErrorTextBytesMax);
}

}  // namespace
}  // namespace vmbfs::hyperv
