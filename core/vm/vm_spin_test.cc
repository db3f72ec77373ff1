// Guests in user space before data-plane threads that spin: nobody signals while both
// are awake, nobody wakes while both sleep, and no wake-up is lost in between.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "core/host/host.h"
#include "core/host/host_fixture.h"
#include "core/vmbfs/message_bytes.h"
#include "core/vmbfs/vmbfs_device.h"
#include "core/vmbfs_client/vmbfs_client.h"
#include "hyperv/guest/guest.h"
#include "hyperv/guest/guest_link.h"

namespace vmbfs {
namespace {

using hyperv::Guest;
using hyperv::GuestChannel;
using hyperv::GuestLink;
using hyperv::GuestProfile;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr size_t kFileBytes = 200'000;
constexpr size_t kReadBytes = 12276;
// The signal that comes 100 ms after an open is over.
constexpr milliseconds kAfterOpen{150};
constexpr std::chrono::seconds kPatience{30};

// A guest with its imc channel open and a version agreed.
class OpenGuest {
 public:
  OpenGuest(const std::string& socket_path, GuestLink link, GuestProfile profile) {
    hyperv::GuestOptions options;
    options.socket_path = socket_path;
    options.profile = profile;
    options.link = link;
    guest_ = Guest::Start(options).value();
    EXPECT_TRUE(guest_->Connect().ok());
    const auto offer = guest_->WaitForOffer(kVmbfsInterfaceId, kImcInstanceId);
    channel_ = guest_->Open(offer.value()).value();
    VmbfsClient client(*channel_);
    EXPECT_TRUE(client.Negotiate().value_or(false));
  }

  // Asks once and looks until the answer is there: never sleeps, asks for no signal.
  bool ReadAwake() {
    const Clock::time_point deadline = Clock::now() + kPatience;
    if (!channel_->pipe().Write(request_).value()) return false;
    while (Clock::now() < deadline) {
      const auto answer = channel_->pipe().Read(buffer_).value();
      if (!answer.has_value()) continue;
      channel_->pipe().Consume();
      return answer->size() > kReadBytes;
    }
    return false;
  }
  // Asks, and sleeps until the answer is there.
  absl::Status ReadAsleep() { return channel_->Exchange(request_, buffer_).status(); }

  uint64_t doorbells() { return channel_->pipe().channel().signals_sent(); }

 private:
  std::unique_ptr<Guest> guest_;
  std::unique_ptr<GuestChannel> channel_;
  const Bytes request_ = ReadBytes(kReadBytes, 4096, u"imc.hiv");
  Bytes buffer_ = Bytes(16384);
};

class VmSpinTest : public HostFixture, public testing::WithParamInterface<GuestLink> {
 protected:
  // A host whose threads spin so; for each VM a guest with an open channel. Linux masks
  // its ring while it reads; the firmware never does, and its rings hold one answer.
  void Start(uint32_t spin_us, uint32_t spin_percent, size_t vms = 1,
             GuestProfile profile = GuestProfile::kLinux) {
    options_.data_plane_threads = 1;
    options_.spin_us = spin_us;
    options_.spin_percent = spin_percent;
    Restart();
    const FileContent content = Upload(std::string(kFileBytes, 'x'));
    for (size_t i = 0; i < vms; ++i) {
      const std::string vm = "vm-" + std::to_string(i);
      ASSERT_TRUE(host_->CreateVm(vm, {}).ok());
      ASSERT_TRUE(host_->Attach(vm, DeviceKind::kImc, content).ok());
      guests_.push_back(
          std::make_unique<OpenGuest>(host_->GetVm(vm)->link_path, GetParam(), profile));
    }
    std::this_thread::sleep_for(kAfterOpen);
  }
  uint64_t Number(const std::string& path) { return std::stoull(Seen(path)); }
  uint64_t OfThread(const std::string& name) { return Number("daemon/data_plane/0/" + name); }
  uint64_t OfChannel(const std::string& name) { return Number("vms/vm-0/channels/imc/" + name); }

  void TearDown() override {
    guests_.clear();
    HostFixture::TearDown();
  }

  std::vector<std::unique_ptr<OpenGuest>> guests_;
};

INSTANTIATE_TEST_SUITE_P(Links, VmSpinTest, testing::ValuesIn(hyperv::kGuestLinks),
                         [](const auto& link) {
                           return std::string(hyperv::GuestLinkName(link.param));
                         });

TEST_P(VmSpinTest, WhileBothAreAwakeNobodySignals) {
  Start(10'000'000, 100);
  OpenGuest& guest = *guests_[0];
  ASSERT_TRUE(guest.ReadAwake());  // the guest masks, and the channel is awake from here on
  const uint64_t doorbells_rung = guest.doorbells();
  const uint64_t doorbells_seen = OfChannel("doorbells");
  const uint64_t signals = OfChannel("signals");
  const uint64_t wakeups = OfThread("wakeups");
  const uint64_t sleeps = OfThread("sleeps");
  for (int i = 0; i < 2000; ++i) ASSERT_TRUE(guest.ReadAwake()) << i;
  EXPECT_EQ(guest.doorbells(), doorbells_rung);
  EXPECT_EQ(OfChannel("doorbells"), doorbells_seen);
  EXPECT_EQ(OfChannel("signals"), signals);
  EXPECT_EQ(OfThread("sleeps"), sleeps);
  // An exclusive lock of this process' own may be met a time or two.
  EXPECT_LE(OfThread("wakeups"), wakeups + 20);
  EXPECT_GE(OfThread("spins_found"), 500u);
}

TEST_P(VmSpinTest, AnOpenChannelThatIsIdleWakesNobody) {
  Start(50, 20);
  ASSERT_TRUE(guests_[0]->ReadAsleep().ok());
  std::this_thread::sleep_for(milliseconds{50});
  const uint64_t wakeups = OfThread("wakeups");
  const uint64_t spin_ns = OfThread("spin_ns");
  EXPECT_GT(wakeups, 0u);
  std::this_thread::sleep_for(std::chrono::seconds{3});
  EXPECT_EQ(OfThread("wakeups"), wakeups);
  EXPECT_EQ(OfThread("spin_ns"), spin_ns);
}

// The room that the guest makes when it takes an answer is not waited for.
TEST_P(VmSpinTest, WithoutSpinningEachRequestIsSignalledOnce) {
  Start(0, 20, 1, GuestProfile::kFirmware);
  OpenGuest& guest = *guests_[0];
  ASSERT_TRUE(guest.ReadAsleep().ok());
  std::this_thread::sleep_for(milliseconds{20});
  const uint64_t doorbells_rung = guest.doorbells();
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(guest.ReadAsleep().ok());
    std::this_thread::sleep_for(milliseconds{2});
  }
  EXPECT_GT(guest.doorbells(), doorbells_rung);
  EXPECT_LE(guest.doorbells(), doorbells_rung + 20);
  EXPECT_EQ(OfThread("spins"), 0u);
}

// Requests that come just as the channel goes to sleep: a wake-up that is lost shows
// as a guest that waits for its answer for 30 s.
TEST_P(VmSpinTest, NoWakeUpIsLostAtTheEdgeOfSleep) {
  constexpr int kWindowUs = 20;  // about what a request takes, so that looks end before and after
  Start(kWindowUs, 100, 2);
  const Clock::time_point end = Clock::now() + std::chrono::seconds{2};
  std::vector<std::thread> readers;
  for (size_t i = 0; i < guests_.size(); ++i) {
    readers.emplace_back([&guest = *guests_[i], end, seed = static_cast<unsigned>(i)] {
      std::mt19937 random(seed);
      std::uniform_int_distribution<int> think_ns(0, 3 * kWindowUs * 1000);
      while (Clock::now() < end) {
        const absl::Status read = guest.ReadAsleep();
        ASSERT_TRUE(read.ok()) << read;
        const auto until = Clock::now() + std::chrono::nanoseconds{think_ns(random)};
        while (Clock::now() < until) {
        }
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
  // How many looks find something is up to the pace of the machine.
  EXPECT_GT(OfThread("sleeps"), 0u);
  EXPECT_GT(OfThread("spins"), 0u);
}

TEST_P(VmSpinTest, TheThreadAnswersWhileAGuestFloodsIt) {
  Start(10'000'000, 100, 2);
  std::atomic<bool> ends = false;
  std::thread flood([&] {
    while (!ends) ASSERT_TRUE(guests_[1]->ReadAwake());
  });
  for (int i = 0; i < 50; ++i) {
    const Clock::time_point begin = Clock::now();
    EXPECT_TRUE(host_->GetVm("vm-0").ok());
    EXPECT_TRUE(guests_[0]->ReadAsleep().ok());
    EXPECT_LT(Clock::now() - begin, std::chrono::seconds{1});
  }
  ends = true;
  flood.join();
}

// Over a second and however often it is asked, too late each time.
TEST_P(VmSpinTest, TheBudgetHoldsOverASecond) {
  Start(500, 5);
  const Clock::time_point begin = Clock::now();
  const uint64_t spin_ns = OfThread("spin_ns");
  std::mt19937 random(1);
  while (Clock::now() < begin + std::chrono::milliseconds{900}) {
    ASSERT_TRUE(guests_[0]->ReadAsleep().ok());
    std::this_thread::sleep_for(microseconds{random() % 800});
  }
  const uint64_t spent_ns = OfThread("spin_ns") - spin_ns;
  EXPECT_GT(spent_ns, 1'000'000u);
  // A thread that lost its core while it looked is counted as if it had gone on.
  EXPECT_LT(spent_ns, 150'000'000u);
}

TEST_P(VmSpinTest, AForcedEndTakesAwakeChannelsAlong) {
  Start(10'000'000, 100, 2);
  for (const auto& guest : guests_) ASSERT_TRUE(guest->ReadAwake());
  ASSERT_TRUE(host_->Detach("vm-0", DeviceKind::kImc, true, "").ok());
  ASSERT_TRUE(host_->DeleteVm("vm-0", true, "").ok());
  ASSERT_TRUE(guests_[1]->ReadAwake());
  host_.reset();  // with a channel awake
}

}  // namespace
}  // namespace vmbfs
