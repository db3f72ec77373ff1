#include "tests/bench/bench_guest.h"

#include <boost/endian/buffers.hpp>
#include <chrono>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/vmbfs/vmbfs_device.h"
#include "core/vmbfs_client/vmbfs_client.h"
#include "hyperv/guest_memory/guest_memory.h"
#include "tests/bench/measure.h"

namespace vmbfs::bench {

namespace {

constexpr auto kTimeout = std::chrono::seconds(60);
constexpr uint32_t kLooksBetweenClockReads = 1 << 16;

// Ends a wait by spinning that takes unreasonably long.
class SpinLimit {
 public:
  absl::Status Look() {
    Relax();
    if (++looks_ % kLooksBetweenClockReads != 0 || std::chrono::steady_clock::now() < end_) {
      return absl::OkStatus();
    }
    return absl::DeadlineExceededError("the host does not answer a guest that spins");
  }

 private:
  uint32_t looks_ = 0;
  const std::chrono::steady_clock::time_point end_ = std::chrono::steady_clock::now() + kTimeout;
};

// The channel of another, whose Exchange never sleeps.
class AwakeChannel final : public hyperv::GuestChannel {
 public:
  explicit AwakeChannel(hyperv::GuestChannel& channel) : channel_(channel) {}

  const hyperv::GuestOffer& offer() const override { return channel_.offer(); }
  hyperv::MessagePipe& pipe() override { return channel_.pipe(); }
  std::optional<uint32_t> last_signal_vp() const override { return channel_.last_signal_vp(); }
  absl::Status Wait() override { return channel_.Wait(); }
  absl::Status SendDeferred(hyperv::PipeMessageType type,
                            std::span<const std::byte> data) override {
    return channel_.SendDeferred(type, data);
  }
  absl::StatusOr<std::span<std::byte>> Exchange(std::span<const std::byte> message,
                                                std::span<std::byte> buffer) override {
    SpinLimit limit;
    for (;;) {
      const absl::StatusOr<bool> written = pipe().Write(message);
      if (!written.ok()) return written.status();
      if (*written) break;
      if (absl::Status look = limit.Look(); !look.ok()) return look;
    }
    for (;;) {
      const absl::StatusOr<std::optional<std::span<std::byte>>> answer = pipe().Read(buffer);
      if (!answer.ok()) return answer.status();
      if (*answer) {
        pipe().Consume();
        return **answer;
      }
      if (absl::Status look = limit.Look(); !look.ok()) return look;
    }
  }

 private:
  hyperv::GuestChannel& channel_;
};

std::vector<std::byte> ReadRequest() {
  ReadFileRequestMessage fixed{};
  fixed.header.type = static_cast<uint32_t>(MessageType::kReadFileRequest);
  fixed.header.reserved = 0;
  fixed.byte_count = kReadBytesMax;
  fixed.offset = 0;
  std::vector<std::byte> request(sizeof(fixed) + 2 * kFileName.size());
  std::memcpy(request.data(), &fixed, sizeof(fixed));
  std::memcpy(request.data() + sizeof(fixed), kFileName.data(), 2 * kFileName.size());
  return request;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BenchGuest>> BenchGuest::Open(const std::string& socket_path,
                                                             hyperv::GuestProfile profile,
                                                             uint64_t ram_bytes) {
  hyperv::GuestOptions options;
  options.socket_path = socket_path;
  options.profile = profile;
  options.ram_bytes = ram_bytes;
  options.timeout = kTimeout;
  options.label = "bench";
  std::unique_ptr<BenchGuest> bench(new BenchGuest);
  auto guest = hyperv::Guest::Start(options);
  if (!guest.ok()) return guest.status();
  bench->guest_ = *std::move(guest);
  if (absl::Status connected = bench->guest_->Connect(); !connected.ok()) return connected;
  const auto offer = bench->guest_->WaitForOffer(kVmbfsInterfaceId, kBootInstanceId);
  if (!offer.ok()) return offer.status();
  auto channel = bench->guest_->Open(*offer);
  if (!channel.ok()) return channel.status();
  bench->channel_ = *std::move(channel);
  bench->awake_ = std::make_unique<AwakeChannel>(*bench->channel_);
  const absl::StatusOr<bool> agreed = VmbfsClient(*bench->channel_).Negotiate();
  if (!agreed.ok()) return agreed.status();
  if (!*agreed) return absl::FailedPreconditionError("the version was refused");
  bench->request_ = ReadRequest();
  bench->answer_.resize(kMessageBytesMax);
  return bench;
}

BenchGuest::~BenchGuest() {
  if (channel_ && guest_) {
    (void)guest_->Close(std::move(channel_));
    (void)guest_->Unload();
  }
}

void BenchGuest::SetOffset(uint64_t offset) {
  boost::endian::little_uint64_buf_t field(offset);
  std::memcpy(request_.data() + offsetof(ReadFileRequestMessage, offset), &field, sizeof(field));
}

absl::Status BenchGuest::CheckAnswer(std::span<const std::byte> answer) const {
  ReadFileResponseMessage response;
  if (answer.size() == kMessageBytesMax) {
    std::memcpy(&response, answer.data(), sizeof(response));
    if (response.status.value() == static_cast<uint32_t>(FileStatus::kSuccess)) {
      return absl::OkStatus();
    }
  }
  return absl::DataLossError(absl::StrCat("a read was answered with ", answer.size(), " bytes"));
}

std::span<const std::byte> BenchGuest::block() const {
  return std::span(answer_).subspan(sizeof(ReadFileResponseMessage));
}

absl::Status BenchGuest::ReadAwake(uint64_t offset) {
  SetOffset(offset);
  const absl::StatusOr<std::span<std::byte>> answer = awake_->Exchange(request_, answer_);
  return answer.ok() ? CheckAnswer(*answer) : answer.status();
}

absl::Status BenchGuest::ReadAsleep(uint64_t offset) {
  SetOffset(offset);
  const absl::StatusOr<std::span<std::byte>> answer = channel_->Exchange(request_, answer_);
  return answer.ok() ? CheckAnswer(*answer) : answer.status();
}

// Takes all answers that are there; one Consume gives their room back.
absl::StatusOr<int> BenchGuest::TakeAnswers() {
  int taken = 0;
  for (; taken < kInFlightMax; ++taken) {
    const absl::StatusOr<std::optional<std::span<std::byte>>> answer =
        channel_->pipe().Read(answer_);
    if (!answer.ok()) return answer.status();
    if (!*answer) break;
    if (absl::Status right = CheckAnswer(**answer); !right.ok()) return right;
  }
  if (taken > 0) channel_->pipe().Consume();
  return taken;
}

absl::Status BenchGuest::Stream(uint64_t first_offset, uint64_t bytes, Waiting waiting) {
  const uint64_t blocks = bytes / kReadBytesMax;
  uint64_t asked = 0;
  uint64_t answered = 0;
  SpinLimit limit;
  while (answered < blocks) {
    while (asked < blocks && asked - answered < kInFlightMax) {
      SetOffset(first_offset + asked * kReadBytesMax);
      const absl::StatusOr<bool> written = channel_->pipe().Write(request_);
      if (!written.ok()) return written.status();
      if (!*written) break;
      ++asked;
    }
    const absl::StatusOr<int> taken = TakeAnswers();
    if (!taken.ok()) return taken.status();
    answered += static_cast<uint64_t>(*taken);
    if (*taken > 0) continue;
    if (waiting == Waiting::kSpin) {
      if (absl::Status look = limit.Look(); !look.ok()) return look;
      continue;
    }
    const absl::StatusOr<bool> there = channel_->pipe().ArmRead();
    if (!there.ok()) return there.status();
    if (*there) continue;
    if (absl::Status waited = channel_->Wait(); !waited.ok()) return waited;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const hyperv::GuestPages>> BenchGuest::RdmaPages() {
  if (!rdma_pages_) {
    auto pages = guest_->AllocateBuffer(VmbfsClient::kRdmaBytesMax / hyperv::kPageBytes);
    if (!pages.ok()) return pages.status();
    rdma_pages_ = *std::move(pages);
  }
  return rdma_pages_;
}

absl::Status BenchGuest::ReadRdmaAwake(uint64_t offset, uint32_t bytes) {
  const auto pages = RdmaPages();
  if (!pages.ok()) return pages.status();
  const absl::StatusOr<RdmaReadAnswer> read =
      VmbfsClient(*awake_).ReadRdma(kFileName, offset, bytes, **pages);
  if (!read.ok()) return read.status();
  if (read->status == FileStatus::kSuccess && read->byte_count == bytes) return absl::OkStatus();
  return absl::DataLossError("an RDMA read was not answered in full");
}

}  // namespace vmbfs::bench
