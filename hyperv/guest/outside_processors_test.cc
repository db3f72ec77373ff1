// A VMM whose processors do not run on its thread: it polls, serves, and hands
// interrupts on, as tests/real_guest/vmm does for KVM.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "hyperv/guest/vmm_test_fixture.h"

namespace vmbfs::hyperv {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

class OutsideProcessorsTest : public VmmTest {
 protected:
  // Once something is there for it.
  void ServeOnce() {
    std::vector<pollfd> fds;
    for (const int fd : vmm().descriptors()) {
      fds.push_back({.fd = fd, .events = POLLIN, .revents = 0});
    }
    ASSERT_TRUE(PollUntil(fds, Soon()));
    ASSERT_TRUE(vmm().Service().ok());
  }

  // CONN_SET or CONN_CLR, and whether the VMM took it.
  bool Change(LinkType type, uint32_t connection) {
    LinkConnWire conn{};
    conn.connection = connection;
    const std::array lent = {doorbell_.get()};
    peer_->Send(type, 0, 5, PayloadBytes(conn),
                type == LinkType::kConnSet ? std::span<const int>(lent) : std::span<const int>());
    ServeOnce();
    return !peer_->Next(type).error();
  }

  GuestVmm::RouteConnection Telling(const absl::Status& result = absl::OkStatus()) {
    return [this, result](uint32_t connection, int event_fd) {
      told_.emplace_back(connection, event_fd >= 0);
      return result;
    };
  }

  const UniqueFd doorbell_ = NewEventFd();
  std::vector<std::pair<uint32_t, bool>> told_;
};

TEST_F(OutsideProcessorsTest, WithoutPagesSynicsAreAsAfterAReset) {
  pages_.clear();
  ConnectWith(GuestLink::kDirect, [](Peer& peer) {
    peer.AnswerHello();
    peer.Reply(peer.Next(LinkType::kMemAdd));
    for (uint32_t vp = 0; vp < 2; ++vp) {
      const auto synic = Parse<LinkSynicWire>(peer.Next(LinkType::kSynic));
      EXPECT_EQ(synic.vp.value(), vp);
      EXPECT_EQ(synic.scontrol.value(), 0u);
      EXPECT_EQ(synic.simp.value(), 0u);
      EXPECT_EQ(synic.sint2.value(), 0x10000u);
    }
    peer.Next(LinkType::kStart);
  });
  ASSERT_TRUE(vmm_.ok()) << vmm_.status();
  const SynicRegisters written = {.scontrol = 1, .siefp = 0x2001, .simp = 0x1001, .sint2 = 0x30041};
  ASSERT_TRUE(vmm().SetSynic(1, written, Soon()).ok());
  const auto synic = Parse<LinkSynicWire>(peer_->Next(LinkType::kSynic));
  EXPECT_EQ(synic.vp.value(), 1u);
  EXPECT_EQ(synic.siefp.value(), 0x2001u);
  EXPECT_EQ(synic.simp.value(), 0x1001u);
  EXPECT_EQ(synic.sint2.value(), 0x30041u);
}

TEST_F(OutsideProcessorsTest, RouteIsToldOfConnectionsNowAndAsTheyComeAndGo) {
  ConnectUsually(GuestLink::kDirect);
  EXPECT_TRUE(Change(LinkType::kConnSet, 0x2001));
  ASSERT_TRUE(vmm().SetRoute(Telling()).ok());
  EXPECT_THAT(std::exchange(told_, {}), ElementsAre(Pair(0x2001, true)));
  EXPECT_TRUE(Change(LinkType::kConnSet, 0x2002));
  EXPECT_THAT(std::exchange(told_, {}), ElementsAre(Pair(0x2002, true)));
  EXPECT_TRUE(Change(LinkType::kConnSet, 0x2001));  // in place of the one before
  EXPECT_THAT(std::exchange(told_, {}), ElementsAre(Pair(0x2001, false), Pair(0x2001, true)));
  EXPECT_TRUE(Change(LinkType::kConnClr, 0x2002));
  EXPECT_TRUE(Change(LinkType::kConnClr, 0x2002));
  EXPECT_THAT(std::exchange(told_, {}), ElementsAre(Pair(0x2002, false)));
  ASSERT_TRUE(vmm().SetRoute({}).ok());
  EXPECT_TRUE(Change(LinkType::kConnSet, 0x2003));
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(OutsideProcessorsTest, ConnectionThatHasNoRouteIsRefused) {
  ConnectUsually(GuestLink::kDirect);
  ASSERT_TRUE(vmm().SetRoute(Telling(absl::InternalError("none"))).ok());
  EXPECT_FALSE(Change(LinkType::kConnSet, 0x2001));
  vmm().SignalEvent(0x2001);
  EXPECT_EQ(Parse<LinkSignalWire>(peer_->Next(LinkType::kSignal)).connection.value(), 0x2001u);
  EXPECT_FALSE(Readable(doorbell_.get()));
}

TEST_F(OutsideProcessorsTest, WhatTheVmmDeliversRaisesItsProcessorsInterrupt) {
  ConnectUsually(GuestLink::kMediated);
  LinkMsgSendWire message{};
  message.vp = 1;
  message.sint = 2;
  message.type = 1;
  message.size = 1;
  peer_->Send(LinkType::kMsgSend, 0, 7, PayloadBytes(message));
  ServeOnce();
  EXPECT_TRUE(TakeEventFd(vmm().interrupt_fd(1)));
  EXPECT_FALSE(TakeEventFd(vmm().interrupt_fd(0)));
  peer_->Next(LinkType::kMsgSend);

  LinkEventGetWire get{};
  get.vp = 0;
  get.sint = 2;
  get.flag = 9;
  peer_->Send(LinkType::kEventGet, 0, 8, PayloadBytes(get));
  ServeOnce();
  const GuestLinkFrame event = peer_->Next(LinkType::kEventGet);
  ASSERT_EQ(event.descriptors.size(), 1u);
  ASSERT_EQ(eventfd_write(event.descriptors[0].get(), 1), 0);
  ServeOnce();
  EXPECT_TRUE(TakeEventFd(vmm().interrupt_fd(0)));
  EXPECT_FALSE(TakeEventFd(vmm().interrupt_fd(1)));
  EXPECT_TRUE(Synic(0).TakeEventFlags().test(9));
}

}  // namespace
}  // namespace vmbfs::hyperv
