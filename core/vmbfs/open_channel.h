// A vmbfs channel while a guest has it open: requests in, answers out.
//
// Trust: messages, and when the guest reads and writes its rings, are the
// guest's. Rules: README.md.

#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/vmbfs/rdma_transfer.h"
#include "core/vmbfs/read_ahead.h"
#include "core/vmbfs/session.h"
#include "core/vmbfs/vmbfs_device.h"
#include "core/vmbfs/vmbfs_status.h"
#include "hyperv/channel/channel_device.h"
#include "hyperv/pipe/message_pipe.h"

namespace vmbfs {

// Room for an answer is reserved before a request is taken, and kept until the
// answer is sent: a request that was taken is answered without waiting for the
// guest. Answers go out in the order of the requests.
//
// Thread safety: the VM's strand.
// Ownership: held by one shared_ptr; a blocking read holds a weak one, so the
// channel may go while the read runs.
// Bounds: one request and at most one blocking read at a time, of kSliceBytesMax
// at most. A turn ends after kTurnRequestsMax requests or a slice of an RDMA read,
// which is also the bound on its bytes.
class OpenChannel : public std::enable_shared_from_this<OpenChannel> {
 public:
  static constexpr size_t kTurnRequestsMax = 16;
  static_assert(kTurnRequestsMax * kMessageBytesMax <= 256 << 10);
  static_assert(RdmaTransfer::kSliceBytesMax <= 256 << 10);

  // As VmbfsDevice::SetReporter's; may be empty.
  using Reporter = std::function<void(std::string_view reason)>;

  // RDMA reads are off where the channel knows no guest memory.
  // REQUIRES: messages of kMessageBytesMax fit the pipe; `runner`, `status` and
  // `report` outlive the channel.
  OpenChannel(hyperv::MessagePipe pipe, std::shared_ptr<const Backing> backing,
              const VmbfsDeviceOptions& options, std::function<void()> wake, BlockingRunner& runner,
              VmbfsDeviceStatus& status, const Reporter& report);

  // As ChannelDevice's.
  absl::StatusOr<hyperv::ChannelTurn> Run();
  absl::StatusOr<hyperv::Armed> Arm();

  const Session& session() const { return session_; }

 private:
  struct BlockingRead;

  // Takes the next request and answers it; false: there is none, or no room for its
  // answer.
  absl::StatusOr<bool> TakeOne();
  absl::StatusOr<hyperv::Armed> ArmRoom();
  // Whether room for any answer is reserved.
  absl::StatusOr<bool> HaveRoom();

  // Answers one request, or starts the blocking read that it needs.
  absl::Status AnswerOne(std::span<const std::byte> request);
  void AnswerRead(const FileRead& read);
  // Begins an RDMA read; the turns that follow do a slice each. Memory that
  // vanishes under a slice is an error: what was lost is not answered for.
  void StartRdma(const RdmaRead& read);
  absl::Status DoRdmaSlice();
  void SendRdmaResponse();

  // `ahead_bytes` from the offset on are asked for besides, in the same job.
  void StartBlockingRead(const File& file, uint64_t offset, size_t byte_count,
                         uint64_t ahead_bytes);
  absl::Status AnswerFinishedRead();
  // What a blocking read brought goes where its request wants it.
  void FinishRead(std::span<const std::byte> data);
  absl::Status FinishRdmaSlice(std::span<const std::byte> data);

  // Copies `bytes` into the reserved room; sends what lies there.
  void CopyIn(size_t offset, std::span<const std::byte> bytes);
  void SendResponse(const Response& response);
  void SendReadData(size_t byte_count);
  void SendHostError(const absl::Status& error);
  void RefuseRdma(const absl::Status& reason);
  void Report(std::string_view reason);
  void Send(size_t bytes);

  hyperv::MessagePipe pipe_;
  Session session_;
  const std::function<void()> wake_;
  BlockingRunner& runner_;
  VmbfsDeviceStatus& status_;
  const Reporter& report_;
  std::optional<hyperv::MessagePipe::Space> room_;  // for kMessageBytesMax
  bool blocking_read_runs_ = false;                 // until its bytes are used
  std::shared_ptr<BlockingRead> finished_read_;     // for the next turn to answer
  // The request that is being answered over several turns: one of them.
  std::optional<FileRead> waiting_read_;
  ReadAhead read_ahead_;
  std::optional<RdmaTransfer> rdma_;
  std::array<std::byte, kMessageBytesMax> request_;
};

}  // namespace vmbfs
