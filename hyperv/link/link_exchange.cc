#include "hyperv/link/link_exchange.h"

#include <boost/asio/post.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace vmbfs::hyperv {
namespace {

constexpr size_t kErrorBytesMax = 512;

}  // namespace

LinkExchange::LinkExchange(const boost::asio::any_io_executor& executor,
                           std::shared_ptr<LinkShared> shared,
                           std::shared_ptr<LinkConnection> connection,
                           std::function<void(const absl::Status&)> on_failure)
    : executor_(executor),
      shared_(std::move(shared)),
      connection_(std::move(connection)),
      on_failure_(std::move(on_failure)) {}

uint64_t LinkExchange::Expect(LinkType type, OnReply on_reply) {
  if (pending_.size() >= kPendingMax) {
    FailLater(absl::ResourceExhaustedError("too many requests wait for the VMM"));
  }
  const uint64_t seq = next_seq_++;
  pending_[seq] = {.type = type, .on_reply = std::move(on_reply)};
  return seq;
}

absl::Status LinkExchange::HandleReply(LinkFrame& frame) {
  const LinkHeader& header = frame.header;
  const auto found = pending_.find(header.seq);
  if (found == pending_.end() || found->second.type != header.type()) {
    return absl::InvalidArgumentError(
        absl::StrCat(header.rule->name, " reply ", header.seq, " answers no request"));
  }
  absl::Status result;
  if (header.error) {
    result = ParseErrorReply(frame.payload);
    if (absl::IsInvalidArgument(result)) return result;
    result = absl::FailedPreconditionError(absl::StrCat(header.rule->name, ": ", result.message()));
    NoteError(std::string(result.message()));
  } else if (frame.payload.size() != header.rule->reply_payload_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(header.rule->name, " reply payload is ",
                                                   frame.payload.size(), " bytes; it must be ",
                                                   header.rule->reply_payload_bytes));
  }
  const OnReply on_reply = std::move(found->second.on_reply);
  pending_.erase(found);
  return on_reply(result, frame);
}

void LinkExchange::Acknowledge(const LinkHeader& header) {
  if (header.wants_answer()) Send(BuildReply(header.type(), header.seq));
}

void LinkExchange::Refuse(const LinkHeader& header, LinkError code, const std::string& reason) {
  ++shared_->frames_refused;
  NoteError(reason);
  Send(BuildError(header.type(), header.seq, code, reason));
}

void LinkExchange::NoteError(const std::string& reason) {
  shared_->last_error = reason.substr(0, kErrorBytesMax);
}

std::function<void()> LinkExchange::Guarded(std::function<void()> action) {
  return [weak = weak_from_this(), action = std::move(action)] {
    const std::shared_ptr<LinkExchange> self = weak.lock();
    if (self != nullptr && !self->closed_) action();
  };
}

void LinkExchange::Later(std::function<void()> action) {
  boost::asio::post(executor_, Guarded(std::move(action)));
}

void LinkExchange::FailLater(const absl::Status& reason) {
  Later([this, reason] { on_failure_(reason); });
}

void LinkExchange::Close() {
  closed_ = true;
  connection_->Close();
  pending_.clear();
}

}  // namespace vmbfs::hyperv
