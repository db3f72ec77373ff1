#include "hyperv/message/message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "hyperv/message/message_bytes.h"

namespace vmbfs::hyperv {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr Guid kVmbfs = Guid::FromLiteral("c376c1c3-d276-48d2-90a9-c04748072c60");
constexpr Guid kImc = Guid::FromLiteral("c4e5e7d1-d748-4afc-979d-683167910a55");

// shared/specs/vmbus.md 2.10.
constexpr char kFirmwareContact[] =
    "0e 00 00 00 00 00 00 00 00 00 06 00 00 00 00 00"
    "00 00 00 00 08 00 00 00 00 00 00 00 00 00 00 00"
    "00 00 00 00 00 00 00 00 64 39 dd 18 8a 3e 42 4e"
    "86 fa c8 e6 b1 91 ee 0e";

// The features that have messages or fields of their own.
constexpr uint32_t kAllFeatures = kFeatureGuestSignalParameters | kFeatureModifyConnection |
                                  kFeatureClientId | kFeaturePauseResume;

std::optional<Protocol> At(uint32_t version, uint32_t features = 0) {
  return Protocol{.version = version, .features = features};
}

template <typename Request>
Request Parse(std::span<const std::byte> message,
              const std::optional<Protocol>& protocol = At(kVersion6_0)) {
  const absl::StatusOr<GuestRequest> parsed = ParseGuestMessage(message, protocol);
  if (!parsed.ok() || !std::holds_alternative<Request>(*parsed)) {
    ADD_FAILURE() << parsed.status();
    return {};
  }
  return std::get<Request>(*parsed);
}

bool Dropped(std::span<const std::byte> message, const std::optional<Protocol>& protocol) {
  return !ParseGuestMessage(message, protocol).ok();
}

std::vector<std::byte> OfType(uint32_t type, size_t size) {
  return MessageBytes(type, size).bytes();
}

// Every type a guest may send, its size by section 2.1 and since when.
struct GuestType {
  uint32_t type;
  size_t size;
  uint32_t version;  // 0: always
  uint32_t features = 0;
};
constexpr GuestType kGuestTypes[] = {
    {3, 8, kVersion2_4},
    {5, 148, kVersion2_4},
    {7, 12, kVersion2_4},
    {8, 20, kVersion2_4},
    {9, 16, kVersion2_4},
    {11, 16, kVersion2_4},
    {13, 12, kVersion2_4},
    {14, 40, 0},
    {16, 8, kVersion2_4},
    {18, 28, kVersion4_0},
    {19, 20, 0},
    {21, 40, kVersion4_0},
    {22, 16, kVersion4_1},
    {25, 24, kVersion6_0, 0x04},
    {27, 8, kVersion6_0, 0x20},
    {29, 8, kVersion6_0, 0x20},
};

TEST(ParseGuestMessageTest, EveryTruncationOfEveryTypeIsRefused) {
  for (const GuestType& each : kGuestTypes) {
    EXPECT_FALSE(Dropped(OfType(each.type, each.size), At(kVersion6_0, each.features)))
        << each.type;
    const std::vector<std::byte> whole = OfType(each.type, each.size);
    for (size_t size = 0; size < whole.size(); ++size) {
      EXPECT_TRUE(Dropped(std::span(whole).first(size), At(kVersion6_0, each.features)))
          << "type " << each.type << " of " << size << " bytes";
    }
  }
}

TEST(ParseGuestMessageTest, LongerThanNeededIsAcceptedUpToTheSlotAndNoFurther) {
  for (const GuestType& each : kGuestTypes) {
    EXPECT_FALSE(Dropped(OfType(each.type, 240), At(kVersion6_0, each.features))) << each.type;
    EXPECT_TRUE(Dropped(OfType(each.type, 241), At(kVersion6_0, each.features))) << each.type;
  }
}

TEST(ParseGuestMessageTest, BeforeContactOnlyContactAndCloseReservedAreKnown) {
  for (const GuestType& each : kGuestTypes) {
    EXPECT_EQ(Dropped(OfType(each.type, 240), std::nullopt), each.version != 0) << each.type;
  }
}

TEST(ParseGuestMessageTest, TypesBelowTheirVersionAreRefused) {
  constexpr uint32_t kVersions[] = {kVersion2_4, kVersion3_0, kVersion4_0, kVersion4_1, kVersion5_0,
                                    kVersion5_1, kVersion5_2, kVersion5_3, kVersion6_0};
  for (const GuestType& each : kGuestTypes) {
    for (const uint32_t version : kVersions) {
      EXPECT_EQ(Dropped(OfType(each.type, 240), At(version, each.features)), version < each.version)
          << "type " << each.type << " at " << VersionText(version);
    }
  }
}

TEST(ParseGuestMessageTest, TypesOfAFeatureAreRefusedWithoutIt) {
  for (const GuestType& each : kGuestTypes) {
    EXPECT_EQ(Dropped(OfType(each.type, 240), At(kVersion6_0, ~each.features)), each.features != 0)
        << each.type;
  }
}

TEST(ParseGuestMessageTest, HostTypesAndUnknownTypesAreRefused) {
  for (const uint32_t type :
       {1u, 2u, 4u, 6u, 10u, 12u, 15u, 17u, 20u, 23u, 24u, 26u, 28u, 0u, 30u, 0xFFFFFFFFu}) {
    EXPECT_TRUE(Dropped(OfType(type, 240), At(kVersion6_0, kAllFeatures))) << type;
  }
}

TEST(ParseGuestMessageTest, RefusalSaysWhy) {
  EXPECT_THAT(ParseGuestMessage(OfType(5, 147), At(kVersion6_0)).status().ToString(),
              HasSubstr("message type 5 is 147 bytes; at least 148 are needed"));
  EXPECT_THAT(ParseGuestMessage(OfType(22, 16), At(kVersion4_0)).status().ToString(),
              HasSubstr("message type 22 is not negotiated at version 4.0"));
}

TEST(ParseContactTest, FirmwareContactIsUnderstood) {
  const auto contact = Parse<ContactRequest>(MessageBytes::FromHex(kFirmwareContact), std::nullopt);
  EXPECT_EQ(contact.version, 0x00060000u);
  EXPECT_EQ(contact.target_vp, 0u);
  EXPECT_EQ(contact.target_sint, 0);
  EXPECT_EQ(contact.features, 0x08u);
  EXPECT_EQ(contact.client_id, Guid::FromLiteral("18dd3964-3e8a-4e42-86fa-c8e6b191ee0e"));
}

TEST(ParseContactTest, ClientIdFlagNeedsTheLongForm) {
  const MessageBytes whole = MessageBytes(14, 56).U32(8, kVersion6_0).U32(20, 0x08);
  for (size_t size = 40; size < 56; ++size) {
    EXPECT_TRUE(Dropped(std::span(whole.bytes()).first(size), std::nullopt)) << size;
  }
  EXPECT_FALSE(Dropped(whole, std::nullopt));
}

TEST(ParseContactTest, ClientIdWithoutFlagIsIgnored) {
  const auto contact =
      Parse<ContactRequest>(MessageBytes(14, 56).U32(8, kVersion6_0).Put(40, kImc));
  EXPECT_EQ(contact.client_id, std::nullopt);
}

TEST(ParseContactTest, FieldsCountFromTheirVersionOn) {
  const auto contact_at = [](uint32_t version) {
    return Parse<ContactRequest>(
        MessageBytes(14, 40).U32(8, version).U32(12, 3).U8(16, 5).U8(17, 1).U32(20, 0xE7));
  };
  EXPECT_EQ(contact_at(kVersion2_4).target_vp, 0u);
  EXPECT_EQ(contact_at(kVersion3_0).target_vp, 3u);
  EXPECT_EQ(contact_at(kVersion4_1).target_sint, 0);
  EXPECT_EQ(contact_at(kVersion5_0).target_sint, 5);
  EXPECT_EQ(contact_at(kVersion5_0).target_vtl, 0);
  EXPECT_EQ(contact_at(kVersion5_1).target_vtl, 1);
  EXPECT_EQ(contact_at(kVersion5_3).features, 0u);
  EXPECT_EQ(contact_at(kVersion6_0).features, 0xE7u);
}

TEST(ParseContactTest, MonitorPagesAreRead) {
  const auto contact = Parse<ContactRequest>(
      MessageBytes(14, 40).U32(8, kVersion5_3).U64(24, 0x13f8c0000).U64(32, 0x13f8d0000));
  EXPECT_EQ(contact.monitor_pages.parent_to_child_gpa, 0x13f8c0000u);
  EXPECT_EQ(contact.monitor_pages.child_to_parent_gpa, 0x13f8d0000u);
}

TEST(ParseOpenTest, FieldsAreReadAndATailNobodyAgreedToIsIgnored) {
  MessageBytes message = MessageBytes(5, 156).U32(8, 1).U32(12, 2).U32(16, 3).U32(20, 4).U32(24, 5);
  message.U64(148, ~uint64_t{0});
  const auto open = Parse<OpenChannelRequest>(message);
  EXPECT_EQ(open.channel_id, 1u);
  EXPECT_EQ(open.open_id, 2u);
  EXPECT_EQ(open.ring_gpadl_id, 3u);
  EXPECT_EQ(open.target_vp, 4u);
  EXPECT_EQ(open.downstream_page_offset, 5u);
  EXPECT_FALSE(open.guest_signals.has_value());
  const auto without = kAllFeatures & ~kFeatureGuestSignalParameters;
  EXPECT_FALSE(Parse<OpenChannelRequest>(message, At(kVersion6_0, without)).guest_signals);
}

TEST(ParseOpenTest, SignalsTheGuestSpecifiesNeedTheLongFormAndAreReadFromIt) {
  const auto protocol = At(kVersion6_0, kFeatureGuestSignalParameters);
  const MessageBytes message =
      MessageBytes(5, 156).U32(148, 0x00ABCDEF).U16(152, 0x1234).U16(154, 0xFFFF);
  for (size_t size = 148; size < 156; ++size) {
    EXPECT_TRUE(Dropped(std::span(message.bytes()).first(size), protocol)) << size;
  }
  const auto open = Parse<OpenChannelRequest>(message, protocol);
  ASSERT_TRUE(open.guest_signals.has_value());
  EXPECT_EQ(open.guest_signals->connection_id, 0x00ABCDEFu);
  EXPECT_EQ(open.guest_signals->event_flag, 0x1234u);
}

TEST(ParseGpadlTest, HeaderOfTheFirmwaresRingIsUnderstood) {
  MessageBytes message = MessageBytes(8, 240).U32(8, 1).U32(12, 1).U16(16, 0x58).U16(18, 1);
  message.U32(20, 0xA000);
  for (size_t i = 0; i < 10; ++i) message.U64(28 + 8 * i, 0x1230 + i);
  const auto header = Parse<GpadlHeaderRequest>(message);
  EXPECT_EQ(header.channel_id, 1u);
  EXPECT_EQ(header.gpadl_id, 1u);
  EXPECT_EQ(header.range_buffer_bytes, 88);
  EXPECT_EQ(header.range_count, 1);
  ASSERT_EQ(header.words.size(), 27u);
  EXPECT_EQ(header.words[0], 0xA000u);
  EXPECT_EQ(header.words[10], 0x1239u);
  EXPECT_EQ(header.words[11], 0u);
}

TEST(ParseGpadlTest, BodyHoldsWholeWordsOnly) {
  const auto body = Parse<GpadlBodyRequest>(MessageBytes(9, 39).U32(12, 7).U64(16, 8).U64(24, 9));
  EXPECT_EQ(body.gpadl_id, 7u);
  EXPECT_THAT(body.words, ElementsAreArray<uint64_t>({8, 9}));
  EXPECT_EQ(Parse<GpadlBodyRequest>(OfType(9, 240)).words.size(), 28u);
  EXPECT_EQ(Parse<GpadlBodyRequest>(OfType(9, 23)).words.size(), 0u);
}

TEST(ParseOtherTest, RemainingRequestsAreRead) {
  EXPECT_EQ(Parse<CloseChannelRequest>(MessageBytes(7, 12).U32(8, 9)).channel_id, 9u);
  EXPECT_EQ(Parse<ReleaseChannelRequest>(MessageBytes(13, 12).U32(8, 9)).channel_id, 9u);
  EXPECT_EQ(Parse<ModifyChannelRequest>(MessageBytes(22, 16).U32(8, 9).U32(12, 3)).target_vp, 3u);
  EXPECT_EQ(Parse<GpadlTeardownRequest>(MessageBytes(11, 16).U32(8, 9).U32(12, 3)).gpadl_id, 3u);
  const auto reserved = Parse<OpenReservedChannelRequest>(
      MessageBytes(18, 28).U32(8, 9).U32(12, 3).U32(16, 0xABCD0005));
  EXPECT_EQ(reserved.target_vp, 3u);
  EXPECT_EQ(reserved.target_sint, 5);
  EXPECT_EQ(Parse<CloseReservedChannelRequest>(MessageBytes(19, 20).U32(8, 9)).channel_id, 9u);
  const auto modify =
      Parse<ModifyConnectionRequest>(MessageBytes(25, 24).U64(8, 0x13f8c0000).U64(16, 0x13f8d0000),
                                     At(kVersion6_0, kFeatureModifyConnection));
  EXPECT_EQ(modify.monitor_pages.parent_to_child_gpa, 0x13f8c0000u);
  EXPECT_EQ(modify.monitor_pages.child_to_parent_gpa, 0x13f8d0000u);
  Parse<PauseRequest>(OfType(27, 8), At(kVersion6_0, kFeaturePauseResume));
  Parse<ResumeRequest>(OfType(29, 8), At(kVersion6_0, kFeaturePauseResume));
  for (const size_t size : {40, 56}) {
    const auto connect =
        Parse<SocketConnectRequest>(MessageBytes(21, size).Put(8, kImc).Put(24, kVmbfs));
    EXPECT_EQ(connect.endpoint_id, kImc);
    EXPECT_EQ(connect.service_id, kVmbfs);
  }
}

TEST(BuildTest, VersionResponsesHaveTheBytesOfTheSpecification) {
  EXPECT_THAT(BuildVersionResponse({kVersion6_0, 0x08}, 0),
              ElementsAreArray(MessageBytes::FromHex(
                  "0f 00 00 00 00 00 00 00 01 00 00 00 01 00 00 00 08 00 00 00")));
  EXPECT_THAT(
      BuildVersionUnsupported(),
      ElementsAreArray(MessageBytes::FromHex("0f 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00")));
  EXPECT_THAT(
      BuildVersionResponse({kVersion4_1, 0}, 0),
      ElementsAreArray(MessageBytes::FromHex("0f 00 00 00 00 00 00 00 01 00 00 00 01 00 04 00")));
  EXPECT_THAT(
      BuildVersionResponse({kVersion5_0, 0}, 2),
      ElementsAreArray(MessageBytes::FromHex("0f 00 00 00 00 00 00 00 01 02 00 00 01 00 00 00")));
}

TEST(BuildTest, OfferHasTheBytesOfTheSpecification) {
  OfferContents offer;
  offer.interface_id = kVmbfs;
  offer.instance_id = kImc;
  offer.flags = 0x0010;
  offer.user_defined[0] = std::byte{4};
  offer.channel_id = 1;
  offer.connection_id = 0x2001;
  std::vector<std::byte> expected = MessageBytes::FromHex(
      "01 00 00 00 00 00 00 00 c3 c1 76 c3 76 d2 d2 48"
      "90 a9 c0 47 48 07 2c 60 d1 e7 e5 c4 48 d7 fc 4a"
      "97 9d 68 31 67 91 0a 55 00 00 00 00 00 00 00 00"
      "00 00 00 00 00 00 00 00 10 00 00 00 04 00 00 00");
  expected.resize(0xb0);
  const std::vector<std::byte> tail = MessageBytes::FromHex(
      "00 00 00 00 00 00 00 00 01 00 00 00 ff 00 01 00"
      "01 20 00 00");
  expected.insert(expected.end(), tail.begin(), tail.end());
  EXPECT_THAT(BuildOfferChannel(offer), ElementsAreArray(expected));
}

TEST(BuildTest, OfferOfAMonitoredChannelNamesItsMonitor) {
  OfferContents offer;
  offer.monitor_id = 127;
  const HostMessage built = BuildOfferChannel(offer);
  ASSERT_EQ(built.size(), 196u);
  EXPECT_THAT(std::vector(built.begin() + 188, built.end()),
              ElementsAreArray(MessageBytes::FromHex("7f 01 01 00 00 00 00 00")));
}

TEST(BuildTest, ResultsHaveTheBytesOfTheSpecification) {
  EXPECT_THAT(
      BuildGpadlCreated(1, 1, kStatusSuccess),
      ElementsAreArray(MessageBytes::FromHex("0a000000 00000000 01000000 01000000 00000000")));
  EXPECT_THAT(
      BuildOpenChannelResult(1, 0, kStatusSuccess),
      ElementsAreArray(MessageBytes::FromHex("06000000 00000000 01000000 00000000 00000000")));
  EXPECT_THAT(
      BuildOpenChannelResult(1, 7, kStatusFailure),
      ElementsAreArray(MessageBytes::FromHex("06000000 00000000 01000000 07000000 ffff0080")));
  EXPECT_THAT(BuildGpadlTorndown(5),
              ElementsAreArray(MessageBytes::FromHex("0c000000 00000000 05000000")));
  EXPECT_THAT(BuildRescindChannelOffer(5),
              ElementsAreArray(MessageBytes::FromHex("02000000 00000000 05000000")));
  EXPECT_THAT(BuildModifyChannelResponse(5, 0),
              ElementsAreArray(MessageBytes::FromHex("18000000 00000000 05000000 00000000")));
  EXPECT_THAT(BuildAllOffersDelivered(),
              ElementsAreArray(MessageBytes::FromHex("04000000 00000000")));
  EXPECT_THAT(BuildUnloadComplete(), ElementsAreArray(MessageBytes::FromHex("11000000 00000000")));
  EXPECT_THAT(BuildModifyConnectionResponse(2),
              ElementsAreArray(MessageBytes::FromHex("1a000000 00000000 02")));
  EXPECT_THAT(BuildPauseResponse(), ElementsAreArray(MessageBytes::FromHex("1c000000 00000000")));
  const MessageBytes refused =
      MessageBytes(23, 44).Put(8, kImc).Put(24, kVmbfs).U32(40, 0xC0000236);
  EXPECT_THAT(BuildSocketConnectResult({kImc, kVmbfs}, kStatusConnectionRefused),
              ElementsAreArray(refused.bytes()));
}

}  // namespace
}  // namespace vmbfs::hyperv
