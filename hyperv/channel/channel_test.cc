#include "hyperv/channel/channel.h"

#include <gtest/gtest.h>

#include <array>

#include "hyperv/channel/channel_device.h"
#include "hyperv/channel/channel_pair.h"
#include "hyperv/guid/guid.h"

namespace vmbfs::hyperv {
namespace {

TEST(ChannelOfferTest, MessagePipeOfferIsThatOfTheSpecification) {
  constexpr Guid kInterface = Guid::FromLiteral("c376c1c3-d276-48d2-90a9-c04748072c60");
  constexpr Guid kInstance = Guid::FromLiteral("c4e5e7d1-d748-4afc-979d-683167910a55");
  const ChannelOffer offer = MessagePipeOffer(kInterface, kInstance);
  EXPECT_EQ(offer.interface_id, kInterface);
  EXPECT_EQ(offer.instance_id, kInstance);
  EXPECT_EQ(offer.flags, 0x0010);
  EXPECT_EQ(offer.subchannel_index, 0);
  std::array<std::byte, 120> user_defined{};
  user_defined[0] = std::byte{4};
  EXPECT_EQ(offer.user_defined, user_defined);
}

class ChannelPairTest : public ::testing::TestWithParam<PageLayout> {};

TEST_P(ChannelPairTest, PacketsAndSignalsCrossBothWays) {
  int host_signalled = 0;
  ChannelPair pair({.layout = GetParam(), .on_host_signalled = [&] { ++host_signalled; }});
  auto host = pair.OpenHost();
  auto guest = pair.OpenGuest();
  ASSERT_TRUE(host.ok() && guest.ok());
  EXPECT_EQ((*host)->incoming().data_bytes(), 16384u);
  EXPECT_TRUE((*host)->incoming().PeerHonoursPendingSendSize());
  EXPECT_TRUE((*guest)->incoming().PeerHonoursPendingSendSize());

  for (Channel* writer : {host->get(), guest->get()}) {
    Channel* reader = writer == host->get() ? guest->get() : host->get();
    ASSERT_FALSE(*reader->incoming().Arm());
    const std::array payload = {std::byte{1}, std::byte{2}};
    ASSERT_TRUE(*writer->outgoing().Reserve(payload.size()));
    writer->outgoing().CopyIn(0, payload);
    writer->outgoing().Commit(payload.size());
    if (writer->outgoing().Publish()) writer->SignalPeer();
    EXPECT_EQ(writer->signals_sent(), 1u);

    std::array<std::byte, 8> buffer;
    const auto packet = reader->incoming().Read(buffer);
    ASSERT_TRUE(packet.ok() && packet->has_value());
    EXPECT_EQ((*packet)->payload[1], std::byte{2});
    EXPECT_FALSE(reader->incoming().Consume());
  }
  EXPECT_EQ(pair.signals_to_guest(), 1u);
  EXPECT_EQ(pair.signals_to_host(), 1u);
  EXPECT_EQ(host_signalled, 1);
}

TEST_P(ChannelPairTest, EndIsOpenedAgainWhereItsRingsStand) {
  ChannelPair pair({.layout = GetParam()});
  auto guest = pair.OpenGuest();
  ASSERT_TRUE(guest.ok());
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(*(*guest)->outgoing().Reserve(0));
    (*guest)->outgoing().Commit(0);
  }
  EXPECT_TRUE((*guest)->outgoing().Publish());  // nobody has masked it yet

  std::array<std::byte, 8> buffer;
  auto host = pair.OpenHost();
  ASSERT_TRUE((*host)->incoming().Read(buffer)->has_value());
  EXPECT_FALSE((*host)->incoming().Consume());
  host = pair.OpenHost();
  EXPECT_EQ((*host)->incoming().cursor(), 24u);
  ASSERT_TRUE((*host)->incoming().Read(buffer)->has_value());
  ASSERT_FALSE((*host)->incoming().Read(buffer)->has_value());
}

INSTANTIATE_TEST_SUITE_P(Layouts, ChannelPairTest, ::testing::ValuesIn(kPageLayouts));

}  // namespace
}  // namespace vmbfs::hyperv
