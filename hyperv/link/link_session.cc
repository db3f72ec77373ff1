#include "hyperv/link/link_session.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "hyperv/link/channel_level.h"
#include "hyperv/link/synic_level.h"

namespace vmbfs::hyperv {
namespace {

// The level and MEDIATED delivery that came with it.
constexpr uint16_t kMinorWithChannelLevel = 1;

// What HELLO asked for, as far as it can be had.
//
// Errors: kUnimplemented.
absl::StatusOr<LinkHelloOk> Negotiate(const LinkHello& hello) {
  LinkHelloOk result{.minor = std::min(hello.minor, kLinkMinor), .level = hello.level};
  const bool is_later = result.minor >= kMinorWithChannelLevel;
  if (hello.level == kLinkLevelChannel && is_later) return result;
  if (hello.level != kLinkLevelSynic) {
    return absl::UnimplementedError(absl::StrCat("HELLO: level ", hello.level,
                                                 " is not supported by version 1.", result.minor));
  }
  if ((hello.delivery_modes & kLinkDeliveryDirect) != 0) {
    result.delivery_mode = kLinkDeliveryDirect;
  } else if ((hello.delivery_modes & kLinkDeliveryMediated) != 0 && is_later) {
    result.delivery_mode = kLinkDeliveryMediated;
  } else {
    return absl::UnimplementedError(absl::StrCat("HELLO: none of the delivery modes 0x",
                                                 absl::Hex(hello.delivery_modes),
                                                 " is supported by version 1.", result.minor));
  }
  return result;
}

}  // namespace

absl::StatusOr<std::shared_ptr<LinkSession>> LinkSession::Start(
    const boost::asio::any_io_executor& executor, UniqueFd socket,
    std::shared_ptr<LinkShared> shared, std::vector<std::shared_ptr<LinkDevice>> devices,
    std::function<void()> on_end) {
  absl::StatusOr<std::shared_ptr<LinkConnection>> connection =
      LinkConnection::Create(executor, std::move(socket), shared->connection);
  if (!connection.ok()) return connection.status();
  auto session = std::make_shared<LinkSession>(shared->memory, std::move(on_end));
  session->devices_ = std::move(devices);
  session->exchange_ = std::make_shared<LinkExchange>(
      executor, std::move(shared), *connection,
      [session = session.get()](const absl::Status& reason) { session->End(reason); });
  (*connection)->Start(session);
  return session;
}

LinkSession::LinkSession(const GuestMemoryOptions& memory, std::function<void()> on_end)
    : on_end_(std::move(on_end)), memory_(memory) {}

void LinkSession::End(const absl::Status& reason) {
  if (std::exchange(ended_, true)) return;
  if (!absl::IsCancelled(reason)) exchange_->NoteError(std::string(reason.message()));
  exchange_->Close();  // first: what the level lets go of is told to nobody
  level_.reset();
  boost::asio::post(exchange_->executor(), on_end_);
}

// Devices

absl::Status LinkSession::AddDevice(std::shared_ptr<LinkDevice> device) {
  if (level_) {
    if (absl::Status status = level_->AddDevice(device); !status.ok()) return status;
  }
  devices_.push_back(std::move(device));
  return absl::OkStatus();
}

void LinkSession::RemoveDevice(const LinkDevice& device) {
  const auto held = std::find_if(devices_.begin(), devices_.end(),
                                 [&](const auto& each) { return each.get() == &device; });
  if (held == devices_.end()) return;
  const std::shared_ptr<LinkDevice> removed = std::move(*held);
  devices_.erase(held);
  if (level_) level_->RemoveDevice(*removed);
}

bool LinkSession::IsOpen(const LinkDevice& device) const {
  return level_ && level_->IsOpen(device);
}

void LinkSession::Describe(LinkStatus& status) const {
  status.connected = level_ != nullptr;
  status.started = started_;
  status.paused = paused_;
  status.peer_label = label_;
  status.memory_regions = memory_.region_count();
  status.memory_bytes = memory_.total_bytes();
  if (level_) level_->Describe(status);
}

// Frames

void LinkSession::OnFrame(LinkFrame frame) {
  if (ended_) return;
  ++exchange_->shared().frames_received;
  const LinkHeader header = frame.header;
  const absl::Status status = header.reply ? exchange_->HandleReply(frame) : HandleRequest(frame);
  if (!status.ok()) {
    Violated(&header, status);
  } else if (level_) {
    level_->Progress();
  }
}

void LinkSession::OnRoom() {
  if (level_) level_->Progress();
}

void LinkSession::OnBroken(const absl::Status& reason) {
  if (ended_) return;
  if (absl::IsInvalidArgument(reason)) {
    Violated(nullptr, reason);
  } else {
    End(reason);
  }
}

// Tells the VMM what it did wrong, if the socket takes it now, and ends.
void LinkSession::Violated(const LinkHeader* header, const absl::Status& reason) {
  ++exchange_->shared().frames_refused;
  const LinkError code =
      absl::IsUnimplemented(reason) ? LinkError::kNotSupported : LinkError::kProtocol;
  const bool answers = header != nullptr && !header->reply;
  exchange_->Send(BuildError(answers ? header->type() : LinkType::kHello, answers ? header->seq : 0,
                             code, std::string(reason.message())));
  End(reason);
}

absl::Status LinkSession::HandleRequest(LinkFrame& frame) {
  const LinkHeader& header = frame.header;
  if (header.type() == LinkType::kHello) return HandleHello(frame);
  if (!level_) return absl::InvalidArgumentError(absl::StrCat(header.rule->name, " before HELLO"));
  switch (header.type()) {
    case LinkType::kMemAdd:
      return HandleMemAdd(frame);
    case LinkType::kMemDel:
      return HandleMemDel(frame);
    case LinkType::kStart:
    case LinkType::kPause:
    case LinkType::kResume:
      return HandleRun(frame);
    case LinkType::kReset:
      return HandleReset(frame);
    default:
      return header.rule->level == level_->types() ? level_->HandleFrame(frame)
                                                   : NotSupported(header);
  }
}

// Reserved, or of the other level.
absl::Status LinkSession::NotSupported(const LinkHeader& header) {
  if (header.wants_answer()) {
    exchange_->Refuse(header, LinkError::kNotSupported,
                      absl::StrCat(header.rule->name, " is not supported"));
  } else {
    ++exchange_->shared().frames_refused;
  }
  return absl::OkStatus();
}

absl::Status LinkSession::HandleHello(const LinkFrame& frame) {
  if (level_) return absl::InvalidArgumentError("a second HELLO");
  const absl::StatusOr<LinkHello> hello = ParseHello(frame.payload);
  if (!hello.ok()) return hello.status();
  const absl::StatusOr<LinkHelloOk> hello_ok = Negotiate(*hello);
  if (!hello_ok.ok()) return hello_ok.status();
  label_ = absl::Utf8SafeCHexEscape(hello->label);
  exchange_->Send(BuildHelloOk(frame.header.seq, *hello_ok));
  if (hello_ok->level == kLinkLevelSynic) {
    level_ =
        std::make_unique<SynicLevel>(*exchange_, memory_, hello->vp_count, hello_ok->delivery_mode);
  } else {
    level_ = std::make_unique<ChannelLevel>(*exchange_, memory_, hello->vp_count);
  }
  for (const std::shared_ptr<LinkDevice>& device : devices_) {
    if (const absl::Status status = level_->AddDevice(device); !status.ok()) {
      exchange_->NoteError(std::string(status.message()));  // the others go on
    }
  }
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
    exchange_->Refuse(frame.header, LinkError::kRefused,
                      absl::StrCat("MEM_ADD of region ", add->region.id, ": ", status.message()));
    return absl::OkStatus();
  }
  level_->MemoryChanged();
  exchange_->Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status LinkSession::HandleMemDel(const LinkFrame& frame) {
  const absl::StatusOr<uint32_t> id = ParseMemDel(frame.payload);
  if (!id.ok()) return id.status();
  level_->FaultUsersOf(*id);
  const absl::Status status = memory_.RemoveRegion(*id);
  level_->MemoryChanged();
  if (!status.ok()) {
    exchange_->Refuse(frame.header, LinkError::kRefused,
                      absl::StrCat("MEM_DEL: ", status.message()));
    return absl::OkStatus();
  }
  exchange_->Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status LinkSession::HandleRun(const LinkFrame& frame) {
  if (absl::Status status = ParseEmpty(frame.payload); !status.ok()) return status;
  if (frame.header.type() == LinkType::kStart) {
    started_ = true;
  } else {
    paused_ = frame.header.type() == LinkType::kPause;
  }
  level_->SetRunning(started_ && !paused_);
  exchange_->Acknowledge(frame.header);
  return absl::OkStatus();
}

absl::Status LinkSession::HandleReset(const LinkFrame& frame) {
  if (const auto reason = ParseReset(frame.payload); !reason.ok()) return reason.status();
  level_->Reset();
  // Behind what the reset brought about.
  exchange_->Later([this, header = frame.header] {
    exchange_->Acknowledge(header);
    level_->ResetAnswered();
  });
  return absl::OkStatus();
}

}  // namespace vmbfs::hyperv
