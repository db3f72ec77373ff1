// ChannelLevel's handlers of what the VMM asks for. An error is a violation, and
// ends the connection.

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "hyperv/gpadl/ring_range.h"
#include "hyperv/link/channel_level.h"
#include "hyperv/link/event_fd.h"
#include "hyperv/message/message_format.h"

namespace vmbfs::hyperv {
namespace {

// What the VMM must keep to in an OPEN, whatever its guest said.
absl::Status CheckOpen(const LinkOpen& open, const std::vector<UniqueFd>& descriptors) {
  if ((open.flags & kLinkOpenResume) != 0) {
    return absl::UnimplementedError("no state is kept that a channel could be resumed from");
  }
  if ((open.flags & kLinkOpenDirectEvent) != 0) {
    return absl::UnimplementedError("direct events are not supported");
  }
  if (open.flags != 0) {
    return absl::UnimplementedError(
        absl::StrCat("flags 0x", absl::Hex(open.flags), " are not supported"));
  }
  for (const UniqueFd& descriptor : descriptors) {
    if (absl::Status status = CheckEventFd(descriptor); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ChannelLevel::HandleFrame(LinkFrame& frame) {
  switch (frame.header.type()) {
    case LinkType::kGpadlAdd:
      return HandleGpadlAdd(frame);
    case LinkType::kGpadlDel:
      return HandleGpadlDel(frame);
    case LinkType::kOpen:
      return HandleOpen(frame);
    case LinkType::kModify:
      return HandleModify(frame);
    case LinkType::kClose:
      return HandleClose(frame);
    default:
      return HandleRelease(frame);
  }
}

ChannelLevel::Offered* ChannelLevel::Admit(const LinkHeader& header, ChannelLevelRequest request,
                                           uint32_t vmm_channel) {
  const auto found = by_channel_.find(vmm_channel);
  if (found == by_channel_.end()) {
    Refuse(header, absl::NotFoundError(absl::StrCat("there is no channel ", vmm_channel)));
    return nullptr;
  }
  Offered& offered = offers_.at(found->second);
  const std::string state =
      absl::StrCat("channel ", vmm_channel, " is ", OfferStateText(offered.state));
  switch (ReactionTo(request, offered.state)) {
    case ChannelLevelReaction::kServe:
      return &offered;
    case ChannelLevelReaction::kAnswer:
      exchange_.Acknowledge(header);
      return nullptr;
    case ChannelLevelReaction::kFail:
      Fail(header, absl::FailedPreconditionError(state));
      return nullptr;
    case ChannelLevelReaction::kRefuse:
      break;
  }
  Refuse(header, absl::FailedPreconditionError(state));
  return nullptr;
}

void ChannelLevel::Fail(const LinkHeader& header, const absl::Status& reason) {
  exchange_.NoteError(absl::StrCat(header.rule->name, ": ", reason.message()));
  exchange_.Send(BuildResult(header, kLinkStatusFailure));
}

void ChannelLevel::Refuse(const LinkHeader& header, const absl::Status& reason) {
  const LinkError code =
      absl::IsUnimplemented(reason) ? LinkError::kNotSupported : LinkError::kRefused;
  const std::string text = absl::StrCat(header.rule->name, ": ", reason.message());
  if (header.wants_answer()) {
    exchange_.Refuse(header, code, text);
  } else {
    ++exchange_.shared().frames_refused;
    exchange_.NoteError(text);
  }
}

absl::Status ChannelLevel::CheckProcessor(uint32_t guest_vp) const {
  if (guest_vp < vp_count_) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("target VP ", guest_vp, " of ", vp_count_, " does not exist"));
}

// GPADLs

absl::Status ChannelLevel::HandleGpadlAdd(LinkFrame& frame) {
  absl::StatusOr<LinkGpadlAdd> add = ParseGpadlAdd(frame.payload, frame.descriptors.size());
  if (!add.ok()) return add.status();
  if (Admit(frame.header, ChannelLevelRequest::kGpadl, add->channel) == nullptr) {
    return absl::OkStatus();
  }
  if (add->range_count != 1) {
    Fail(frame.header, absl::InvalidArgumentError(absl::StrCat(add->range_count, " ranges")));
    return absl::OkStatus();
  }
  // Before the list is read: it is allocated for.
  if (add->pages > GpadlTable::kPageFramesMax - gpadls_.page_count()) {
    Fail(frame.header, absl::ResourceExhaustedError(absl::StrCat(
                           "GPADLs of more than ", GpadlTable::kPageFramesMax, " pages")));
    return absl::OkStatus();
  }
  std::vector<uint64_t> page_frames = std::move(add->page_frames);
  if (!frame.descriptors.empty()) {
    absl::StatusOr<std::vector<uint64_t>> read =
        ReadPageFrames(frame.descriptors.front(), add->pages);
    if (!read.ok()) {
      Refuse(frame.header, read.status());
      return absl::OkStatus();
    }
    page_frames = *std::move(read);
  }
  if (const absl::Status added = AddGpadl(*add, std::move(page_frames)); !added.ok()) {
    Fail(frame.header, added);
  } else {
    exchange_.Send(BuildResult(frame.header, kLinkStatusSuccess));
  }
  return absl::OkStatus();
}

// As one range of whole pages, which is what the guest's words would say.
absl::Status ChannelLevel::AddGpadl(const LinkGpadlAdd& add, std::vector<uint64_t> page_frames) {
  std::vector<uint64_t> words = std::move(page_frames);
  words.insert(words.begin(), uint64_t{add.pages} * PageRanges::kPageBytes);
  return gpadls_.Create(add.channel, add.gpadl, words.size() * sizeof(uint64_t), 1, words).status();
}

absl::Status ChannelLevel::HandleGpadlDel(const LinkFrame& frame) {
  const absl::StatusOr<LinkGpadlDel> del = ParseGpadlDel(frame.payload);
  if (!del.ok()) return del.status();
  Offered* const offered = Admit(frame.header, ChannelLevelRequest::kGpadl, del->channel);
  if (offered == nullptr) return absl::OkStatus();
  switch (gpadls_.Teardown(del->channel, del->gpadl)) {
    case GpadlTeardown::kGone:
      exchange_.Acknowledge(frame.header);
      break;
    case GpadlTeardown::kDeferred:
      offered->gpadl_del_request = frame.header;
      break;
    case GpadlTeardown::kRefused:
      Refuse(frame.header, absl::NotFoundError(absl::StrCat("channel ", del->channel,
                                                            " has no GPADL ", del->gpadl)));
      break;
  }
  return absl::OkStatus();
}

// Open, modify, close

absl::Status ChannelLevel::HandleOpen(LinkFrame& frame) {
  const absl::StatusOr<LinkOpen> open = ParseOpen(frame.payload, frame.descriptors.size());
  if (!open.ok()) return open.status();
  Offered* const offered = Admit(frame.header, ChannelLevelRequest::kOpen, open->channel);
  if (offered == nullptr) return absl::OkStatus();
  if (const absl::Status status = CheckOpen(*open, frame.descriptors); !status.ok()) {
    Refuse(frame.header, status);
    return absl::OkStatus();
  }
  const bool interrupts = open->target_vp != kNoInterruptVp;
  if (const absl::Status status = interrupts ? CheckProcessor(open->target_vp) : absl::OkStatus();
      !status.ok()) {
    Fail(frame.header, status);
    return absl::OkStatus();
  }
  const PageRanges* const ring = gpadls_.Hold(open->channel, open->ring_gpadl);
  const absl::StatusOr<RingSplit> split = SplitRing(ring, open->downstream_page_offset);
  if (!split.ok()) {
    if (ring != nullptr) gpadls_.Unhold(open->channel, open->ring_gpadl);
    Fail(frame.header, split.status());
    return absl::OkStatus();
  }
  offered->state = OfferState::kOpening;
  offered->open_request = frame.header;
  offered->target_vp = open->target_vp;
  offered->ring_gpadl = open->ring_gpadl;
  offered->ring_page_frames = split->whole;
  const auto wire = std::make_shared<ChannelWire>(
      std::move(frame.descriptors[0]), interrupts ? std::move(frame.descriptors[1]) : UniqueFd());
  offered->wire = wire;
  channels_->Open(offered->offer, split->incoming, split->outgoing, wire);
  return absl::OkStatus();
}

absl::Status ChannelLevel::HandleModify(LinkFrame& frame) {
  const absl::StatusOr<LinkModify> modify = ParseModify(frame.payload);
  if (!modify.ok()) return modify.status();
  Offered* const offered = Admit(frame.header, ChannelLevelRequest::kModify, modify->channel);
  if (offered == nullptr) return absl::OkStatus();
  absl::Status status = CheckProcessor(modify->target_vp);
  if (status.ok() && frame.descriptors.size() > 1) {
    status = absl::UnimplementedError("direct events are not supported");
  }
  if (status.ok()) status = CheckEventFd(frame.descriptors[0]);
  const std::shared_ptr<ChannelWire> wire = offered->wire.lock();
  if (status.ok() && (wire == nullptr || offered->target_vp == kNoInterruptVp)) {
    status = absl::FailedPreconditionError("the guest asked not to be interrupted");
  }
  if (!status.ok()) {
    Refuse(frame.header, status);
    return absl::OkStatus();
  }
  wire->Move(std::move(frame.descriptors[0]));
  offered->target_vp = modify->target_vp;
  exchange_.Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status ChannelLevel::HandleClose(const LinkFrame& frame) {
  const absl::StatusOr<uint32_t> channel = ParseChannel("CLOSE", frame.payload);
  if (!channel.ok()) return channel.status();
  Offered* const offered = Admit(frame.header, ChannelLevelRequest::kClose, *channel);
  if (offered == nullptr) return absl::OkStatus();
  CloseChannel(*offered);
  exchange_.Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status ChannelLevel::HandleRelease(const LinkFrame& frame) {
  const absl::StatusOr<uint32_t> channel = ParseChannel("RELEASE", frame.payload);
  if (!channel.ok()) return channel.status();
  Offered* const offered = Admit(frame.header, ChannelLevelRequest::kRelease, *channel);
  if (offered == nullptr) return absl::OkStatus();
  const OfferState state = offered->state;
  if (state == OfferState::kOpening || state == OfferState::kOpen) CloseChannel(*offered);
  gpadls_.EraseChannel(*channel);
  if (state == OfferState::kRevoked) {
    by_channel_.erase(*channel);
    offers_.erase(offered->offer);
  }
  exchange_.Acknowledge(frame.header);
  return absl::OkStatus();
}

}  // namespace vmbfs::hyperv
