#include "core/vmbfs/vmbfs_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/vmbfs/device_fixture.h"

namespace vmbfs {
namespace {

using testing::HasSubstr;

class VmbfsDeviceTest : public DeviceTest {
 protected:
  void SetUp() override { MakeDevice(MemoryBacking(content_, "first")); }

  // As the firmware: reads of the largest size, not clamped, until the size
  // that the info gave is reached.
  Bytes ReadWholeFile(size_t size_bytes) {
    Bytes file;
    while (file.size() < size_bytes) {
      const Bytes answer = Exchange(ReadBytes(12276, file.size(), u"\\imc.hiv"));
      const Bytes head = ReadAnswerBytes(0);
      if (answer.size() <= head.size() || Range(answer, 0, head.size()) != head) {
        ADD_FAILURE() << "answer of " << answer.size() << " bytes at " << file.size();
        return file;
      }
      file.insert(file.end(), answer.begin() + static_cast<ptrdiff_t>(head.size()), answer.end());
    }
    return file;
  }

  const Bytes content_ = Pattern(65536);
};

TEST_F(VmbfsDeviceTest, TheOfferIsAPipeInMessageMode) {
  const hyperv::ChannelOffer& offer = device_->offer();
  EXPECT_EQ(offer.interface_id.ToString(), "c376c1c3-d276-48d2-90a9-c04748072c60");
  EXPECT_EQ(offer.instance_id.ToString(), "c4e5e7d1-d748-4afc-979d-683167910a55");
  EXPECT_EQ(kBootInstanceId.ToString(), "c63c9bdf-5fa5-4208-b03f-6b458b365592");
  EXPECT_EQ(offer.flags, 0x0010);
  EXPECT_EQ(offer.user_defined[0], std::byte{4});
}

TEST_F(VmbfsDeviceTest, AnOpenWithFewerThan4DataPagesIsRefusedWithTheNumbers) {
  for (const size_t pages : {1u, 2u, 3u}) {
    const absl::Status status = TryOpen(pages);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(pages) + " data pages"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("at least 4"));
    EXPECT_EQ(device_->active(), nullptr);
    EXPECT_FALSE(device_->status().open);
  }
  EXPECT_EQ(device_->status().opens, 0u);
  Open(4);
  EXPECT_TRUE(device_->status().open);
}

TEST_F(VmbfsDeviceTest, RequestsInTheRingBeforeTheOpenAreAnswered) {
  pair_.emplace(options_);
  guest_.emplace(pair_->OpenGuest().value());
  ASSERT_TRUE(Send(VersionBytes()));
  ASSERT_TRUE(device_->Open(pair_->OpenHost().value(), [] {}).ok());
  host_awake_ = guest_awake_ = true;
  RunDevice();
  EXPECT_EQ(Receive(), VersionAnswer(0));
}

TEST_F(VmbfsDeviceTest, ReadsOfEachSizeCarryExactlyTheirBytes) {
  OpenAndAgree();
  for (const uint32_t count : {1u, 2u, 4095u, 4096u, 12275u, 12276u}) {
    for (const size_t offset : {0u, 1u, 40000u}) {
      EXPECT_EQ(Exchange(ReadBytes(count, offset, u"imc.hiv")),
                ReadAnswerBytes(0, Range(content_, offset, count)));
    }
  }
  EXPECT_EQ(Exchange(ReadBytes(0, 0, u"imc.hiv")), ReadAnswerBytes(0));
  EXPECT_EQ(Exchange(ReadBytes(12277, 0, u"imc.hiv")), ReadAnswerBytes(3));
  EXPECT_EQ(Exchange(ReadBytes(12276, 65535, u"imc.hiv")),
            ReadAnswerBytes(0, Range(content_, 65535, 1)));
  EXPECT_EQ(Exchange(ReadBytes(12276, 65536, u"imc.hiv")), ReadAnswerBytes(2));
}

TEST_F(VmbfsDeviceTest, EveryFileSizeReadsWhole) {
  for (const size_t size : {0u, 1u, 12276u, 12277u, 5u << 20}) {
    const Bytes content = Pattern(size, static_cast<uint32_t>(size) + 1);
    MakeDevice(MemoryBacking(content));
    OpenAndAgree();
    EXPECT_EQ(Exchange(InfoBytes(u"\\imc.hiv")), InfoAnswer(0, 0, size));
    EXPECT_TRUE(ReadWholeFile(size) == content) << size;
    EXPECT_EQ(device_->status().bytes_read, size);
    EXPECT_TRUE(pair_->OutsideIsUntouched());
    Close();
  }
}

TEST_F(VmbfsDeviceTest, PipelinedRequestsAreAnsweredInOrder) {
  OpenAndAgree(16);
  const std::vector<Bytes> requests = {
      InfoBytes(u"imc.hiv"), ReadBytes(5000, 3, u"imc.hiv"),  InfoBytes(u"missing"),
      VersionBytes(),        ReadBytes(12276, 7, u"imc.hiv"), InfoBytes(u"")};
  for (const Bytes& request : requests) ASSERT_TRUE(Send(request));
  RunDevice();
  EXPECT_EQ(Receive(), InfoAnswer(0, 0, 65536));
  EXPECT_EQ(Receive(), ReadAnswerBytes(0, Range(content_, 3, 5000)));
  EXPECT_EQ(Receive(), InfoAnswer(1, 0, 0));
  EXPECT_EQ(Receive(), VersionAnswer(0));
  EXPECT_EQ(Receive(), ReadAnswerBytes(0, Range(content_, 7, 12276)));
  EXPECT_EQ(Receive(), InfoAnswer(0, 1, 0));
  EXPECT_EQ(Receive(), std::nullopt);
}

// So that a host that dies in between has lost neither.
TEST_F(VmbfsDeviceTest, AnAnswerIsPublishedBeforeItsRequestIsGivenUp) {
  OpenAndAgree();
  EXPECT_EQ(Receive(), std::nullopt);  // the guest sleeps, so the answer signals it
  const auto consumed_up_to = [this] {
    return pair_->GuestToHost().Load(hyperv::ControlWord::kOut, std::memory_order_seq_cst);
  };
  const uint32_t before = consumed_up_to();
  std::optional<uint32_t> at_the_signal;
  on_guest_signalled_ = [&] { at_the_signal = consumed_up_to(); };
  ASSERT_TRUE(Send(InfoBytes(u"imc.hiv")));
  RunDevice();
  EXPECT_EQ(at_the_signal, before);
  EXPECT_NE(consumed_up_to(), before);
}

TEST_F(VmbfsDeviceTest, NoRequestIsTakenWhileThereIsNoRoomForALargestAnswer) {
  OpenAndAgree();
  for (size_t i = 0; i < 3; ++i) ASSERT_TRUE(Send(ReadBytes(12276, i, u"imc.hiv")));
  RunDevice();
  EXPECT_EQ(device_->status().read_requests, 1u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(device_->status().read_requests, i + 1);
    EXPECT_EQ(Receive(), ReadAnswerBytes(0, Range(content_, i, 12276)));
    // Making room signalled the device, which waited for it.
    RunDevice();
  }
  EXPECT_EQ(device_->status().read_requests, 3u);
}

TEST_F(VmbfsDeviceTest, ATurnEndsAfter16Requests) {
  OpenAndAgree(32);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(Send(InfoBytes(u"imc.hiv")));
  ASSERT_TRUE(host_awake_);
  EXPECT_EQ(device_->Run().value().next, Next::kMore);
  EXPECT_EQ(device_->status().info_requests, 16u);
  EXPECT_EQ(device_->Run().value().next, Next::kIdle);
  EXPECT_EQ(device_->status().info_requests, 20u);
}

TEST_F(VmbfsDeviceTest, SpuriousSignalsAreHarmless) {
  OpenAndAgree();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(device_->Run().value().next, Next::kIdle);
  EXPECT_EQ(Exchange(InfoBytes(u"imc.hiv")), InfoAnswer(0, 0, 65536));
  EXPECT_EQ(Receive(), std::nullopt);
}

TEST_F(VmbfsDeviceTest, ASwapTakesEffectAtTheNextOpen) {
  const Bytes second = Pattern(30000, 2);
  OpenAndAgree();
  EXPECT_EQ(Exchange(ReadBytes(12276, 0, u"imc.hiv")),
            ReadAnswerBytes(0, Range(content_, 0, 12276)));

  device_->SetBacking(MemoryBacking(second, "second"));
  EXPECT_EQ(device_->status().wanted, "second");
  EXPECT_EQ(device_->status().active, "first");
  EXPECT_EQ(Exchange(VersionBytes()), VersionAnswer(0));
  EXPECT_EQ(Exchange(InfoBytes(u"imc.hiv")), InfoAnswer(0, 0, 65536));
  EXPECT_EQ(Exchange(ReadBytes(12276, 50000, u"imc.hiv")),
            ReadAnswerBytes(0, Range(content_, 50000, 12276)));

  Close();
  EXPECT_EQ(device_->active(), nullptr);
  OpenAndAgree();
  EXPECT_EQ(device_->status().active, "second");
  EXPECT_TRUE(ReadWholeFile(second.size()) == second);
}

TEST_F(VmbfsDeviceTest, ACloseLetsGoOfWhatTheChannelRead) {
  auto backing = MemoryBacking(content_);
  const std::weak_ptr<const Backing> watch = backing;
  device_->SetBacking(std::move(backing));
  OpenAndAgree();
  device_->SetBacking(MemoryBacking(content_));
  EXPECT_FALSE(watch.expired());
  EXPECT_EQ(device_->active(), watch.lock());
  Close();
  EXPECT_TRUE(watch.expired());
}

TEST_F(VmbfsDeviceTest, AReopenedChannelHasAgreedNoVersion) {
  OpenAndAgree();
  EXPECT_TRUE(device_->status().ready);
  Close();
  EXPECT_FALSE(device_->status().ready);
  Open();
  EXPECT_EQ(Exchange(InfoBytes(u"imc.hiv")), InfoAnswer(3, 0, 0));
  EXPECT_FALSE(device_->status().ready);
  EXPECT_EQ(device_->status().opens, 2u);
}

TEST_F(VmbfsDeviceTest, ARunAfterTheCloseDoesNothing) {
  OpenAndAgree();
  Close();
  EXPECT_EQ(device_->Run().value().next, Next::kIdle);
}

TEST_F(VmbfsDeviceTest, WhatHasNoAnswerEndsServiceUntilTheNextOpen) {
  const std::vector<std::pair<Bytes, std::string>> faults = {
      {Bytes(), "0 bytes"},
      {Hex("01000000 000000"), "7 bytes"},
      {Join({Header(9), Bytes(24)}), "unknown type 9"},
      {InfoAnswer(0, 0, 0), "type 4 goes from host to guest only"},
      {Join({InfoBytes(u""), Bytes(12281)}), "12289"},
  };
  for (const auto& [message, reason] : faults) {
    SCOPED_TRACE(reason);
    OpenAndAgree();
    const absl::Status status = FaultOf(message);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
    EXPECT_EQ(Receive(), std::nullopt);
    Close();
  }
  OpenAndAgree();
  EXPECT_EQ(Exchange(InfoBytes(u"imc.hiv")), InfoAnswer(0, 0, 65536));
}

// The firmware registers a buffer ahead of a request, in one go. A broken
// registration shows that they are looked at.
TEST_F(VmbfsDeviceTest, BuffersAreRegisteredAheadOfRequests) {
  OpenAndAgree();
  const auto send_set_up = [this](std::byte range_count) {
    Bytes payload(8 + 9 + 16);
    payload[0] = std::byte{3};   // GPA-direct set-up
    payload[4] = std::byte{25};  // of so many bytes
    payload[8 + 5] = range_count;
    payload[8 + 9] = std::byte{1};  // one byte of the first page
    hyperv::OutgoingRing& ring = guest_->channel().outgoing();
    ASSERT_TRUE(*ring.Reserve(payload.size()));
    ring.CopyIn(0, payload);
    ring.Commit(payload.size());
    host_awake_ = ring.Publish() || host_awake_;
  };
  send_set_up(std::byte{1});
  EXPECT_EQ(Exchange(VersionBytes()), VersionAnswer(0));
  send_set_up(std::byte{2});
  EXPECT_THAT(std::string(FaultOf(VersionBytes()).message()), HasSubstr("GPA-direct"));
}

TEST_F(VmbfsDeviceTest, ALargestMessageIsStillAnswered) {
  OpenAndAgree();
  // 12,288 bytes: the path is far too long, the message is not.
  EXPECT_EQ(Exchange(Join({InfoBytes(u""), Bytes(12280, std::byte{'/'})})), InfoAnswer(3, 0, 0));
  EXPECT_EQ(Exchange(InfoBytes(u"imc.hiv")), InfoAnswer(0, 0, 65536));
}

TEST_F(VmbfsDeviceTest, BrokenIndicesOfEitherRingEndService) {
  for (const uint32_t index : {4u, 16384u, 0xFFFFFFF8u}) {
    OpenAndAgree();
    pair_->GuestToHost().Store(hyperv::ControlWord::kIn, index, std::memory_order_seq_cst);
    EXPECT_EQ(device_->Run().status().code(), absl::StatusCode::kInvalidArgument) << index;
    Close();

    OpenAndAgree();
    // The room for one answer was reserved before the guest broke the index;
    // the next one is not.
    pair_->HostToGuest().Store(hyperv::ControlWord::kOut, index, std::memory_order_seq_cst);
    ASSERT_TRUE(Send(InfoBytes(u"imc.hiv")));
    EXPECT_EQ(device_->Run().status().code(), absl::StatusCode::kInvalidArgument) << index;
    Close();
  }
}

TEST_F(VmbfsDeviceTest, TheReasonOfABadRequestIsKept) {
  OpenAndAgree();
  EXPECT_EQ(Exchange(ReadBytes(20000, 0, u"imc.hiv")), ReadAnswerBytes(3));
  EXPECT_EQ(device_->status().bad_requests, 1u);
  EXPECT_EQ(device_->status().last_bad_request,
            "read file: 20000 bytes asked for; at most 12276 fit into a response");
}

}  // namespace
}  // namespace vmbfs
