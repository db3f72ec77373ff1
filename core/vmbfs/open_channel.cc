#include "core/vmbfs/open_channel.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "hyperv/guest_memory/guest_access.h"
#include "hyperv/guest_memory/guest_memory.h"

namespace vmbfs {
namespace {

using hyperv::Armed;
using hyperv::ChannelTurn;
using Pieces = std::array<iovec, hyperv::MessagePipe::Space::kPiecesMax>;

// The part of `from` that holds `bytes` at `offset`, written to `pieces`;
// returns how many there are.
size_t SlicePieces(std::span<const iovec> from, size_t offset, size_t bytes, Pieces& pieces) {
  size_t count = 0;
  for (const iovec& piece : from) {
    if (offset >= piece.iov_len) {
      offset -= piece.iov_len;
      continue;
    }
    const size_t taken = std::min(bytes, piece.iov_len - offset);
    if (taken == 0) break;
    pieces[count++] = {static_cast<std::byte*>(piece.iov_base) + offset, taken};
    bytes -= taken;
    offset = 0;
  }
  return count;
}

}  // namespace

// A read that waits for a disk. Shared by the job and its end, so that neither
// needs the channel.
struct OpenChannel::BlockingRead {
  std::shared_ptr<const Backing> backing;  // keeps the file
  const File* file = nullptr;
  uint64_t offset = 0;
  uint64_t ahead_bytes = 0;
  // Until it is done: the runner may give it up.
  absl::Status status = absl::UnavailableError("too many reads wait for the disk");
  std::vector<std::byte> data;

  void Do() {
    // First, so that the disk has it all to do at once; the read waits for its own.
    if (ahead_bytes > 0) file->ReadAhead(offset, ahead_bytes);
    const absl::StatusOr<size_t> count = file->ReadBlocking(offset, data);
    if (!count.ok()) {
      status = count.status();
    } else if (*count != data.size()) {
      status = absl::DataLossError("the file ended ahead of its size");
    } else {
      status = absl::OkStatus();
    }
  }
};

OpenChannel::OpenChannel(hyperv::MessagePipe pipe, std::shared_ptr<const Backing> backing,
                         const VmbfsDeviceOptions& options, std::function<void()> wake,
                         BlockingRunner& runner, VmbfsDeviceStatus& status, const Reporter& report)
    : pipe_(std::move(pipe)),
      session_(std::move(backing), pipe_.channel().memory() == nullptr ? 0 : options.rdma_bytes_min,
               status),
      wake_(std::move(wake)),
      runner_(runner),
      status_(status),
      report_(report) {}

absl::StatusOr<ChannelTurn> OpenChannel::Run() {
  ChannelTurn turn{.next = ChannelTurn::Next::kMore};
  if (finished_read_ != nullptr) {
    const bool slice = rdma_.has_value();
    if (absl::Status status = AnswerFinishedRead(); !status.ok()) return status;
    ++turn.requests;
    if (slice) return turn;
  }
  if (rdma_.has_value() && !blocking_read_runs_) {
    if (absl::Status status = DoRdmaSlice(); !status.ok()) return status;
    ++turn.requests;
  } else {
    while (turn.requests < kTurnRequestsMax && !rdma_.has_value() && !blocking_read_runs_) {
      const absl::StatusOr<bool> taken = TakeOne();
      if (!taken.ok()) return taken.status();
      if (!*taken) {
        turn.next = ChannelTurn::Next::kIdle;
        return turn;
      }
      ++turn.requests;
    }
  }
  // The end of a blocking read wakes us.
  if (blocking_read_runs_) turn.next = ChannelTurn::Next::kWaiting;
  return turn;
}

absl::StatusOr<bool> OpenChannel::TakeOne() {
  const absl::StatusOr<bool> room = HaveRoom();
  if (!room.ok() || !*room) return room;
  const absl::StatusOr<std::optional<std::span<std::byte>>> request = pipe_.Read(request_);
  if (!request.ok()) return request.status();
  if (!request->has_value()) return false;
  if (absl::Status status = AnswerOne(**request); !status.ok()) return status;
  return true;
}

absl::StatusOr<Armed> OpenChannel::Arm() {
  // Room is waited for only when a request needs it: the guest makes room for the next
  // answer anyway, when it takes this one, and need not signal that.
  if (!room_.has_value()) {
    const absl::StatusOr<bool> asked = pipe_.HasInput();
    if (!asked.ok()) return asked.status();
    if (*asked) return ArmRoom();
  }
  const absl::StatusOr<bool> arrived = pipe_.ArmRead();
  if (!arrived.ok()) return arrived.status();
  return *arrived ? Armed::kArrived : Armed::kSignal;
}

absl::StatusOr<Armed> OpenChannel::ArmRoom() {
  const absl::StatusOr<bool> made = pipe_.ArmWrite(kMessageBytesMax);
  if (!made.ok()) return made.status();
  if (*made) return Armed::kArrived;
  return pipe_.channel().incoming().PeerHonoursPendingSendSize() ? Armed::kSignal
                                                                 : Armed::kUnsignalled;
}

absl::StatusOr<bool> OpenChannel::HaveRoom() {
  if (room_.has_value()) return true;
  const absl::StatusOr<std::optional<hyperv::MessagePipe::Space>> room =
      pipe_.Reserve(kMessageBytesMax);
  if (!room.ok()) return room.status();
  room_ = *room;
  return room_.has_value();
}

absl::Status OpenChannel::AnswerOne(std::span<const std::byte> request) {
  const uint64_t bad_requests_before = status_.bad_requests;
  const absl::StatusOr<Answer> answer = session_.Handle(request);
  if (!answer.ok()) return answer.status();
  if (status_.bad_requests != bad_requests_before) Report(status_.last_bad_request);
  if (const FileRead* read = std::get_if<FileRead>(&*answer)) {
    AnswerRead(*read);
  } else if (const RdmaRead* rdma = std::get_if<RdmaRead>(&*answer)) {
    StartRdma(*rdma);
  } else {
    SendResponse(std::get<Response>(*answer));
  }
  return absl::OkStatus();
}

void OpenChannel::AnswerRead(const FileRead& read) {
  read_ahead_.OnRead(read.file, read.offset, read.byte_count);
  Pieces pieces;
  const size_t piece_count =
      SlicePieces(room_->span(), sizeof(ReadFileResponseMessage), read.byte_count, pieces);
  const absl::StatusOr<size_t> count =
      read.file->ReadNow(read.offset, std::span<const iovec>(pieces).first(piece_count));
  if (count.ok() && *count == read.byte_count) {
    SendReadData(read.byte_count);
  } else if (count.ok() || count.status().code() == absl::StatusCode::kUnavailable) {
    const size_t done_bytes = count.value_or(0);
    waiting_read_ = read;
    StartBlockingRead(*read.file, read.offset + done_bytes, read.byte_count - done_bytes,
                      read_ahead_.OnMiss());
  } else {
    SendHostError(count.status());
  }
}

void OpenChannel::StartRdma(const RdmaRead& read) {
  absl::StatusOr<RdmaTransfer> transfer =
      RdmaTransfer::Start(read, pipe_.gpa_direct(), *pipe_.channel().memory());
  if (!transfer.ok()) return RefuseRdma(transfer.status());
  rdma_ = *std::move(transfer);
}

absl::Status OpenChannel::DoRdmaSlice() {
  const hyperv::VanishedMemoryWatch watch;
  size_t left_bytes = RdmaTransfer::kSliceBytesMax;
  while (left_bytes > 0 && !rdma_->done()) {
    RdmaTransfer::Slice slice;
    if (absl::Status found = rdma_->FindSlice(left_bytes, slice); !found.ok()) {
      RefuseRdma(found);
      return absl::OkStatus();
    }
    const File& file = *rdma_->read().file;
    const absl::StatusOr<size_t> count = file.ReadNow(rdma_->file_offset(), slice.span());
    if (watch.vanished()) return pipe_.channel().memory()->CheckVanished(watch);
    if (!count.ok() && count.status().code() != absl::StatusCode::kUnavailable) {
      SendHostError(count.status());
      return absl::OkStatus();
    }
    const size_t done_bytes = count.value_or(0);
    if (done_bytes == 0) {
      // The rest of the request is sure to be read.
      StartBlockingRead(file, rdma_->file_offset(), slice.bytes, rdma_->left_bytes());
      return absl::OkStatus();
    }
    rdma_->Advance(done_bytes);
    left_bytes -= done_bytes;
  }
  if (rdma_->done()) SendRdmaResponse();
  return absl::OkStatus();
}

void OpenChannel::StartBlockingRead(const File& file, uint64_t offset, size_t byte_count,
                                    uint64_t ahead_bytes) {
  ++status_.blocking_reads;
  blocking_read_runs_ = true;
  const auto job = std::make_shared<BlockingRead>();
  job->backing = session_.backing();
  job->file = &file;
  job->offset = offset;
  job->ahead_bytes = ahead_bytes;
  job->data.resize(byte_count);
  runner_.Run([job] { job->Do(); },
              [job, channel = weak_from_this()] {
                const auto open = channel.lock();
                if (open == nullptr) return;
                open->finished_read_ = job;
                open->wake_();
              });
}

absl::Status OpenChannel::AnswerFinishedRead() {
  const std::shared_ptr<BlockingRead> job = std::exchange(finished_read_, nullptr);
  blocking_read_runs_ = false;
  if (!job->status.ok()) {
    SendHostError(job->status);
  } else if (rdma_.has_value()) {
    return FinishRdmaSlice(job->data);
  } else {
    FinishRead(job->data);
  }
  return absl::OkStatus();
}

void OpenChannel::FinishRead(std::span<const std::byte> data) {
  const size_t byte_count = std::exchange(waiting_read_, std::nullopt)->byte_count;
  CopyIn(sizeof(ReadFileResponseMessage) + byte_count - data.size(), data);
  SendReadData(byte_count);
}

absl::Status OpenChannel::FinishRdmaSlice(std::span<const std::byte> data) {
  const hyperv::VanishedMemoryWatch watch;
  while (!data.empty()) {
    RdmaTransfer::Slice slice;
    // One page at most, so that of many that vanished only the first is missed:
    // each costs a mapping of the daemon's.
    const size_t bytes_max = std::min<size_t>(data.size(), hyperv::kPageBytes);
    if (absl::Status found = rdma_->FindSlice(bytes_max, slice); !found.ok()) {
      RefuseRdma(found);
      return absl::OkStatus();
    }
    for (const iovec& piece : slice.span()) {
      hyperv::CopyToGuest(static_cast<std::byte*>(piece.iov_base), data.data(), piece.iov_len);
      if (watch.vanished()) return pipe_.channel().memory()->CheckVanished(watch);
      data = data.subspan(piece.iov_len);
    }
    rdma_->Advance(slice.bytes);
  }
  if (rdma_->done()) SendRdmaResponse();
  return absl::OkStatus();
}

void OpenChannel::SendRdmaResponse() {
  const uint32_t byte_count = std::exchange(rdma_, std::nullopt)->read().byte_count;
  status_.rdma_bytes_read += byte_count;
  SendResponse(Response::ReadFileRdma(FileStatus::kSuccess, byte_count));
}

void OpenChannel::CopyIn(size_t offset, std::span<const std::byte> bytes) {
  Pieces pieces;
  const size_t piece_count = SlicePieces(room_->span(), offset, bytes.size(), pieces);
  for (const iovec& piece : std::span(pieces).first(piece_count)) {
    hyperv::CopyToGuest(static_cast<std::byte*>(piece.iov_base), bytes.data(), piece.iov_len);
    bytes = bytes.subspan(piece.iov_len);
  }
}

void OpenChannel::SendResponse(const Response& response) {
  CopyIn(0, response.bytes());
  Send(response.bytes().size());
}

void OpenChannel::SendReadData(size_t byte_count) {
  const Response header = Response::ReadFile(FileStatus::kSuccess);
  CopyIn(0, header.bytes());
  status_.bytes_read += byte_count;
  Send(header.bytes().size() + byte_count);
}

void OpenChannel::SendHostError(const absl::Status& error) {
  ++status_.host_errors;
  status_.last_host_error = std::string(error.message());
  Report(status_.last_host_error);
  waiting_read_.reset();
  const bool rdma = std::exchange(rdma_, std::nullopt).has_value();
  SendResponse(rdma ? Response::ReadFileRdma(FileStatus::kError, 0)
                    : Response::ReadFile(FileStatus::kError));
}

void OpenChannel::RefuseRdma(const absl::Status& reason) {
  rdma_.reset();
  const Response response = session_.RefuseRdma(std::string(reason.message()));
  Report(status_.last_bad_request);
  SendResponse(response);
}

void OpenChannel::Report(std::string_view reason) {
  if (report_) report_(reason);
}

// The answer is published before its request is given up, so that at any
// moment one of the two is in a ring.
void OpenChannel::Send(size_t bytes) {
  room_.reset();
  pipe_.Send(bytes);
  pipe_.Consume();
}

}  // namespace vmbfs
