// LinkSession's handlers of what the VMM asks for.

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "hyperv/link/link_session.h"

namespace vmbfs::hyperv {

absl::Status LinkSession::HandleHello(const LinkFrame& frame) {
  if (bus_) return absl::InvalidArgumentError("a second HELLO");
  const absl::StatusOr<LinkHello> hello = ParseHello(frame.payload);
  if (!hello.ok()) return hello.status();
  if (hello->level != kLinkLevelSynic) {
    return absl::UnimplementedError(
        absl::StrCat("HELLO: level ", hello->level, " is not supported; ", kLinkLevelSynic, " is"));
  }
  if ((hello->delivery_modes & kLinkDeliveryDirect) == 0) {
    return absl::UnimplementedError("HELLO: DIRECT delivery is needed, and was not offered");
  }
  label_ = absl::Utf8SafeCHexEscape(hello->label);
  synic_ = std::make_unique<Synic>(memory_, hello->vp_count,
                                   [this](uint32_t vp, uint8_t sint) { RequestSint(vp, sint); });
  channels_ = std::make_shared<LinkChannels>(executor_, *this, memory_, *synic_);
  bus_ = std::make_unique<Bus>(*this);
  for (const std::shared_ptr<LinkDevice>& device : devices_) {
    if (const absl::Status status = OfferDevice(device); !status.ok()) {
      NoteError(std::string(status.message()));  // the others go on
    }
  }
  connection_->Send(BuildHelloOk(frame.header.seq, hello->minor));
  return absl::OkStatus();
}

absl::Status LinkSession::HandleMemAdd(LinkFrame& frame) {
  const absl::StatusOr<LinkMemAdd> add = ParseMemAdd(frame.payload);
  if (!add.ok()) return add.status();
  absl::Status status;
  if (add->flags != 0) {
    status = absl::UnimplementedError(
        absl::StrCat("flags 0x", absl::Hex(add->flags), " are not supported"));
  } else {
    status = memory_.AddRegion(add->region, std::move(frame.descriptors.front()));
  }
  if (!status.ok()) {
    Refuse(frame.header, LinkError::kRefused,
           absl::StrCat("MEM_ADD of region ", add->region.id, ": ", status.message()));
    return absl::OkStatus();
  }
  synic_->MemoryChanged();
  Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status LinkSession::HandleMemDel(const LinkFrame& frame) {
  const absl::StatusOr<uint32_t> id = ParseMemDel(frame.payload);
  if (!id.ok()) return id.status();
  channels_->FaultIf(
      [&](OfferId offer) { return memory_.RegionHoldsAny(*id, bus_->RingPageFrames(offer)); },
      absl::FailedPreconditionError(
          absl::StrCat("the VMM took memory region ", *id, ", which holds the rings, away")));
  const absl::Status status = memory_.RemoveRegion(*id);
  synic_->MemoryChanged();
  if (!status.ok()) {
    Refuse(frame.header, LinkError::kRefused, absl::StrCat("MEM_DEL: ", status.message()));
    return absl::OkStatus();
  }
  Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status LinkSession::CheckVp(uint32_t vp) const {
  if (vp < synic_->vp_count()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("VP ", vp, ", where HELLO said there are ", synic_->vp_count()));
}

absl::Status LinkSession::HandleSynic(const LinkFrame& frame) {
  const absl::StatusOr<LinkSynic> state = ParseSynic(frame.payload);
  if (!state.ok()) return state.status();
  if (absl::Status status = CheckVp(state->vp); !status.ok()) return status;
  synic_->SetRegisters(state->vp, {.scontrol = state->scontrol,
                                   .siefp = state->siefp,
                                   .simp = state->simp,
                                   .sint2 = state->sint2});
  Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status LinkSession::HandleSignal(const LinkFrame& frame) {
  const absl::StatusOr<LinkSignal> signal = ParseSignal(frame.payload);
  if (!signal.ok()) return signal.status();
  channels_->Signalled(signal->connection);
  Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status LinkSession::HandleEom(const LinkFrame& frame) {
  const absl::StatusOr<LinkSint> eom = ParseEom(frame.payload);
  if (!eom.ok()) return eom.status();
  if (absl::Status status = CheckVp(eom->vp); !status.ok()) return status;
  synic_->EndOfMessage(eom->vp, eom->sint);
  Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status LinkSession::HandleRun(const LinkFrame& frame) {
  if (absl::Status status = ParseEmpty(frame.payload); !status.ok()) return status;
  if (frame.header.type() == LinkType::kStart) {
    started_ = true;
  } else {
    paused_ = frame.header.type() == LinkType::kPause;
  }
  if (running()) {
    synic_->SetRunning(true);  // first: channels signal through it
    channels_->SetRunning(true);
  } else {
    channels_->SetRunning(false);
    synic_->SetRunning(false);
  }
  Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status LinkSession::HandleReset(const LinkFrame& frame) {
  if (const auto reason = ParseReset(frame.payload); !reason.ok()) return reason.status();
  posts_.clear();
  bus_->Reset();
  // Behind the answers to the bus that the reset brought about.
  Later([header = frame.header](LinkSession& session) { session.Acknowledge(header); });
  return absl::OkStatus();
}

absl::Status LinkSession::HandlePost(const LinkFrame& frame) {
  const absl::StatusOr<LinkPost> post = ParsePost(frame.payload);
  if (!post.ok()) return post.status();
  if (absl::Status status = CheckVp(post->vp); !status.ok()) return status;
  if (last_post_seq_ && post->post_seq <= *last_post_seq_) {
    return absl::InvalidArgumentError(
        absl::StrCat("POST ", post->post_seq, " after POST ", *last_post_seq_));
  }
  if (posts_.size() >= kLinkPostsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("more than ", kLinkPostsMax, " posts that are not acknowledged"));
  }
  last_post_seq_ = post->post_seq;
  posts_.push_back(*post);
  Acknowledge(frame.header);
  return absl::OkStatus();
}

}  // namespace vmbfs::hyperv
