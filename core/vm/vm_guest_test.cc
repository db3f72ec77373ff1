// VMs with guests in user space that read through the whole of it: link, bus,
// rings, device, backing. The ThreadSanitizer test of hyperv and core together.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "core/host/host.h"
#include "core/host/host_fixture.h"
#include "core/vmbfs/vmbfs_device.h"
#include "core/vmbfs_client/vmbfs_client.h"
#include "hyperv/guest/guest.h"
#include "hyperv/guest/guest_link.h"

namespace vmbfs {
namespace {

using absl::StatusCode;
using hyperv::Guest;
using hyperv::GuestChannel;
using hyperv::GuestLink;
using hyperv::GuestProfile;
using testing::HasSubstr;

// A hive's worth of bytes that differ from block to block.
std::string Pattern(size_t bytes, char seed) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(seed + i / 7 + i % 251);
  return text;
}

std::string Text(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// What one read of a whole file gave: its bytes, or the error as text.
std::string ReadAll(GuestChannel& channel, std::u16string_view path) {
  VmbfsClient client(channel);
  const auto agreed = client.Negotiate();
  if (!agreed.ok()) return agreed.status().ToString();
  if (!*agreed) return "version refused";
  const auto bytes = client.ReadFile(path);
  return bytes.ok() ? Text(*bytes) : bytes.status().ToString();
}

// Each guest over each form of the link.
using Parameters = std::tuple<GuestProfile, GuestLink>;

class VmGuestTest : public HostFixture, public testing::WithParamInterface<Parameters> {
 protected:
  std::unique_ptr<Guest> StartGuest(const std::string& vm) {
    hyperv::GuestOptions options;
    options.socket_path = host_->GetVm(vm)->link_path;
    std::tie(options.profile, options.link) = GetParam();
    auto guest = Guest::Start(options);
    EXPECT_TRUE(guest.ok()) << guest.status();
    if (!guest.ok()) return nullptr;
    const absl::Status connected = (*guest)->Connect();
    EXPECT_TRUE(connected.ok()) << connected;
    return *std::move(guest);
  }

  static std::unique_ptr<GuestChannel> Open(Guest& guest, const hyperv::Guid& instance) {
    const auto offer = guest.WaitForOffer(kVmbfsInterfaceId, instance);
    EXPECT_TRUE(offer.ok()) << offer.status();
    if (!offer.ok()) return nullptr;
    auto channel = guest.Open(*offer);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return channel.ok() ? *std::move(channel) : nullptr;
  }

  // A VM with a hive on its imc device.
  void CreateVmWithHive(const std::string& vm, const std::string& hive) {
    ASSERT_TRUE(host_->CreateVm(vm, {}).ok());
    const auto attached = host_->Attach(vm, DeviceKind::kImc, Upload(hive));
    ASSERT_TRUE(attached.ok()) << attached.status();
  }

  const std::string old_hive_ = Pattern(64 << 10, 1);
  const std::string new_hive_ = Pattern(48 << 10, 2);
};

TEST_P(VmGuestTest, GuestReadsBothDevices) {
  CreateVmWithHive("web-7", old_hive_);
  const std::string image = Pattern(100'000, 3);
  ASSERT_TRUE(host_->Attach("web-7", DeviceKind::kBoot, Upload(image, "boot.wim")).ok());
  const auto guest = StartGuest("web-7");
  ASSERT_NE(guest, nullptr);
  const auto imc = Open(*guest, kImcInstanceId);
  const auto boot = Open(*guest, kBootInstanceId);
  ASSERT_TRUE(imc != nullptr && boot != nullptr);
  EXPECT_EQ(ReadAll(*imc, u"imc.hiv"), old_hive_);
  EXPECT_EQ(ReadAll(*boot, u"\\BOOT.WIM"), image);
  EXPECT_THAT(ReadAll(*boot, u"imc.hiv"), HasSubstr("NOT_FOUND"));

  const auto vm = host_->GetVm("web-7");
  ASSERT_TRUE(vm.ok()) << vm.status();
  EXPECT_TRUE(vm->link_connected);
  for (const AttachmentView& attachment : vm->attachments) {
    EXPECT_TRUE(attachment.open);
    EXPECT_EQ(attachment.fault, "");
    ASSERT_TRUE(attachment.active.has_value());
    EXPECT_EQ(attachment.active->sha256, attachment.wanted.sha256);
    EXPECT_EQ(attachment.active->name, attachment.wanted.name);
  }
  EXPECT_EQ(Seen("vms/web-7/devices/imc/bytes_read"), std::to_string(old_hive_.size()));
  EXPECT_EQ(Seen("vms/web-7/devices/boot/not_found"), "1");
  EXPECT_EQ(Seen("vms/web-7/link/peer_label"), "vmbfs-guest");
  const GuestLink link = std::get<GuestLink>(GetParam());
  const bool channel_level = link == GuestLink::kChannel;
  EXPECT_EQ(Seen("vms/web-7/link/level"), channel_level ? "channel" : "synic");
  EXPECT_EQ(Seen("vms/web-7/link/delivery"), channel_level ? "" : hyperv::GuestLinkName(link));
  EXPECT_EQ(Seen("vms/web-7/bus/state"), channel_level ? "the VMM's own" : "connected");
  EXPECT_EQ(Seen("vms/web-7/bus/version"), channel_level ? "" : guest->version());
  EXPECT_EQ(Seen("vms/web-7/channels/imc/open"), "1");
  EXPECT_NE(Seen("vms/web-7/backings/boot/active/sha256"), "");
}

TEST_P(VmGuestTest, SwapReachesTheGuestAtItsNextOpen) {
  CreateVmWithHive("web-7", old_hive_);
  const auto guest = StartGuest("web-7");
  ASSERT_NE(guest, nullptr);
  auto channel = Open(*guest, kImcInstanceId);
  ASSERT_NE(channel, nullptr);
  VmbfsClient client(*channel);
  ASSERT_TRUE(client.Negotiate().value_or(false));
  const auto head = client.Read(u"imc.hiv", 0, 4096);
  ASSERT_TRUE(head.ok()) << head.status();

  // Twice: what the open channel reads is neither wanted nor last wanted.
  ASSERT_TRUE(host_->Swap("web-7", DeviceKind::kImc, Upload("in between"), "").ok());
  const FileContent content = Upload(new_hive_);
  const auto swapped = host_->Swap("web-7", DeviceKind::kImc, content, "");
  ASSERT_TRUE(swapped.ok()) << swapped.status();
  EXPECT_TRUE(swapped->open);
  EXPECT_EQ(swapped->wanted.sha256, content.sha256);
  ASSERT_TRUE(swapped->active.has_value());
  EXPECT_EQ(swapped->active->size_bytes, old_hive_.size());

  const auto tail = client.Read(u"imc.hiv", 4096, 4096);
  ASSERT_TRUE(tail.ok()) << tail.status();
  EXPECT_EQ(Text(head->data) + Text(tail->data), old_hive_.substr(0, 8192));
  EXPECT_EQ(ReadAll(*channel, u"imc.hiv"), old_hive_);

  ASSERT_TRUE(guest->Close(std::move(channel)).ok());
  channel = Open(*guest, kImcInstanceId);
  ASSERT_NE(channel, nullptr);
  EXPECT_EQ(ReadAll(*channel, u"imc.hiv"), new_hive_);
  EXPECT_EQ(host_->GetAttachment("web-7", DeviceKind::kImc)->active->sha256, content.sha256);
}

TEST_P(VmGuestTest, OpenDeviceIsNotDetachedWithoutForce) {
  CreateVmWithHive("web-7", old_hive_);
  const auto guest = StartGuest("web-7");
  ASSERT_NE(guest, nullptr);
  auto channel = Open(*guest, kImcInstanceId);
  ASSERT_NE(channel, nullptr);
  ExpectError(host_->Detach("web-7", DeviceKind::kImc, false, ""), StatusCode::kFailedPrecondition,
              "DEVICE_OPEN");
  ExpectError(host_->DeleteVm("web-7", false, ""), StatusCode::kFailedPrecondition, "DEVICE_OPEN");
  EXPECT_EQ(ReadAll(*channel, u"imc.hiv"), old_hive_);

  const uint32_t channel_id = channel->offer().channel_id;
  ASSERT_TRUE(guest->Close(std::move(channel)).ok());
  ASSERT_TRUE(host_->Detach("web-7", DeviceKind::kImc, false, "").ok());
  EXPECT_TRUE(guest->WaitForRescind(channel_id).ok());
}

TEST_P(VmGuestTest, ForcedDetachTakesTheDeviceFromTheGuest) {
  CreateVmWithHive("web-7", old_hive_);
  const auto guest = StartGuest("web-7");
  ASSERT_NE(guest, nullptr);
  const auto channel = Open(*guest, kImcInstanceId);
  ASSERT_NE(channel, nullptr);
  ASSERT_TRUE(host_->Detach("web-7", DeviceKind::kImc, true, "").ok());
  EXPECT_TRUE(guest->WaitForRescind(channel->offer().channel_id).ok());
  EXPECT_THAT(ReadAll(*channel, u"imc.hiv"), HasSubstr("ABORTED"));
  EXPECT_TRUE(host_->GetVm("web-7")->attachments.empty());
}

TEST_P(VmGuestTest, RefusedDetachLeavesTheDeviceToBeOpenedAgain) {
  CreateVmWithHive("web-7", old_hive_);
  const auto guest = StartGuest("web-7");
  ASSERT_NE(guest, nullptr);
  auto channel = Open(*guest, kImcInstanceId);
  ASSERT_NE(channel, nullptr);
  ExpectError(host_->DeleteVm("web-7", false, ""), StatusCode::kFailedPrecondition, "DEVICE_OPEN");
  ASSERT_TRUE(guest->Close(std::move(channel)).ok());
  channel = Open(*guest, kImcInstanceId);
  ASSERT_NE(channel, nullptr);
  EXPECT_EQ(ReadAll(*channel, u"imc.hiv"), old_hive_);
}

TEST_P(VmGuestTest, DeviceAttachedLaterIsOfferedToTheRunningGuest) {
  ASSERT_TRUE(host_->CreateVm("web-7", {}).ok());
  const auto guest = StartGuest("web-7");
  ASSERT_NE(guest, nullptr);
  EXPECT_TRUE(guest->offers().empty());
  ASSERT_TRUE(host_->Attach("web-7", DeviceKind::kImc, Upload(old_hive_)).ok());
  const auto channel = Open(*guest, kImcInstanceId);
  ASSERT_NE(channel, nullptr);
  EXPECT_EQ(ReadAll(*channel, u"imc.hiv"), old_hive_);
}

TEST_P(VmGuestTest, ForcedDeletionEndsTheLink) {
  CreateVmWithHive("web-7", old_hive_);
  const auto guest = StartGuest("web-7");
  ASSERT_NE(guest, nullptr);
  const auto channel = Open(*guest, kImcInstanceId);
  ASSERT_NE(channel, nullptr);
  ASSERT_TRUE(host_->DeleteVm("web-7", true, "").ok());
  EXPECT_THAT(ReadAll(*channel, u"imc.hiv"), HasSubstr("UNAVAILABLE"));
}

TEST_P(VmGuestTest, EndOfTheHostIsSeenByItsGuests) {
  CreateVmWithHive("web-7", old_hive_);
  const auto guest = StartGuest("web-7");
  ASSERT_NE(guest, nullptr);
  const auto channel = Open(*guest, kImcInstanceId);
  ASSERT_NE(channel, nullptr);
  host_.reset();
  EXPECT_THAT(ReadAll(*channel, u"imc.hiv"), HasSubstr("UNAVAILABLE"));
}

TEST_P(VmGuestTest, FaultOfOneGuestIsShownAndNoOtherGuestNotices) {
  CreateVmWithHive("web-7", old_hive_);
  CreateVmWithHive("db-1", new_hive_);
  const auto bad = StartGuest("web-7");
  const auto good = StartGuest("db-1");
  ASSERT_TRUE(bad != nullptr && good != nullptr);
  auto bad_channel = Open(*bad, kImcInstanceId);
  const auto good_channel = Open(*good, kImcInstanceId);
  ASSERT_TRUE(bad_channel != nullptr && good_channel != nullptr);
  // No legal answer to a message without a whole header exists.
  const std::vector<std::byte> message(3);
  ASSERT_TRUE(bad_channel->pipe().Write(message).value_or(false));
  AttachmentView view;
  for (int look = 0; look < 1000 && view.fault.empty(); ++look) {
    std::this_thread::sleep_for(std::chrono::milliseconds{5});
    view = host_->GetAttachment("web-7", DeviceKind::kImc).value();
  }
  EXPECT_NE(view.fault, "");
  EXPECT_EQ(Seen("vms/web-7/channels/imc/faults"), "1");
  EXPECT_EQ(ReadAll(*good_channel, u"imc.hiv"), new_hive_);

  ASSERT_TRUE(bad->Close(std::move(bad_channel)).ok());
  bad_channel = Open(*bad, kImcInstanceId);
  ASSERT_NE(bad_channel, nullptr);
  EXPECT_EQ(ReadAll(*bad_channel, u"imc.hiv"), old_hive_);
}

// One guest's life: open, read the whole file twice, close, and again. Each
// read must give one of the contents whole, and both reads of an open the same.
void ReadRepeatedly(Guest& guest, int opens, const std::vector<std::string>& contents) {
  for (int open = 0; open < opens; ++open) {
    const auto offer = guest.WaitForOffer(kVmbfsInterfaceId, kImcInstanceId);
    ASSERT_TRUE(offer.ok()) << offer.status();
    auto channel = guest.Open(*offer);
    ASSERT_TRUE(channel.ok()) << channel.status();
    const std::string first = ReadAll(**channel, u"imc.hiv");
    const std::string second = ReadAll(**channel, u"imc.hiv");
    EXPECT_TRUE(first == second) << "a swap reached an open channel";
    EXPECT_THAT(contents, testing::Contains(first));
    const absl::Status closed = guest.Close(*std::move(channel));
    ASSERT_TRUE(closed.ok()) << closed;
  }
}

TEST_P(VmGuestTest, TwoGuestsReadWhileTheirFilesAreSwappedAndWatched) {
  CreateVmWithHive("web-7", old_hive_);
  CreateVmWithHive("db-1", old_hive_);
  const std::vector<FileContent> contents = {Upload(old_hive_), Upload(new_hive_)};
  const auto first = StartGuest("web-7");
  const auto second = StartGuest("db-1");
  ASSERT_TRUE(first != nullptr && second != nullptr);

  constexpr int kOpens = 12;
  const std::vector<std::string> texts = {old_hive_, new_hive_};
  std::atomic<int> reading = 2;
  const auto read = [&](Guest& guest) {
    ReadRepeatedly(guest, kOpens, texts);
    --reading;
  };
  std::thread first_reader([&] { read(*first); });
  std::thread second_reader([&] { read(*second); });
  std::thread swapper([&] {
    for (size_t round = 0; reading > 0; ++round) {
      for (const char* vm : {"web-7", "db-1"}) {
        EXPECT_TRUE(host_->Swap(vm, DeviceKind::kImc, contents[round % 2], "").ok());
      }
    }
  });
  std::thread watcher([&] {
    while (reading > 0) {
      EXPECT_TRUE(host_->Inspect("", 9).ok());
      EXPECT_TRUE(host_->ListVms("", 10).ok());
    }
  });
  for (std::thread* thread : {&first_reader, &second_reader, &swapper, &watcher}) thread->join();
}

std::string NameOf(const testing::TestParamInfo<Parameters>& parameters) {
  const auto [profile, link] = parameters.param;
  return std::string(hyperv::GuestLinkName(link)) +
         (profile == GuestProfile::kFirmware ? "Firmware" : "Linux");
}

INSTANTIATE_TEST_SUITE_P(Guests, VmGuestTest,
                         testing::Combine(testing::Values(GuestProfile::kFirmware,
                                                          GuestProfile::kLinux),
                                          testing::ValuesIn(hyperv::kGuestLinks)),
                         NameOf);

}  // namespace
}  // namespace vmbfs
