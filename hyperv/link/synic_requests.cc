#include "hyperv/link/synic_requests.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "hyperv/link/direct_synic.h"
#include "hyperv/link/event_fd.h"
#include "hyperv/link/link_codec.h"
#include "hyperv/link/mediated_synic.h"

namespace vmbfs::hyperv {
namespace {

// Whether a reply's descriptors are all eventfds.
absl::Status CheckEventFds(LinkExchange& exchange, const LinkFrame& reply) {
  for (const UniqueFd& descriptor : reply.descriptors) {
    if (absl::Status status = CheckEventFd(descriptor); !status.ok()) {
      exchange.NoteError(absl::StrCat(reply.header.rule->name, ": ", status.message()));
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status TakeSint(LinkExchange& exchange, DirectSynic& synic, uint32_t vp, uint8_t sint,
                      LinkFrame& reply, const std::function<void()>& on_end_of_message) {
  if (absl::Status status = CheckEventFds(exchange, reply); !status.ok()) return status;
  std::shared_ptr<EventWaiter> ack;
  if (reply.descriptors.size() > 1) {
    absl::StatusOr<std::shared_ptr<EventWaiter>> waiter =
        EventWaiter::Start(exchange.executor(), std::move(reply.descriptors[1]),
                           [&synic, vp, sint, on_end_of_message] {
                             synic.EndOfMessage(vp, sint);
                             on_end_of_message();
                           });
    if (!waiter.ok()) return waiter.status();
    ack = *std::move(waiter);
  }
  synic.SintReady(vp, sint, std::move(reply.descriptors[0]), std::move(ack));
  return absl::OkStatus();
}

void SendMessage(LinkExchange& exchange, MediatedSynic& synic, uint64_t out_seq, uint32_t vp,
                 uint8_t sint, std::span<const std::byte> message) {
  const uint64_t seq = exchange.Expect(
      LinkType::kMsgSend, [&synic, vp, sint](const absl::Status& result, LinkFrame& frame) {
        if (!result.ok()) {
          synic.MessageRefused(vp, sint);
          return absl::OkStatus();
        }
        const absl::StatusOr<LinkMsgResult> delivered = ParseMsgSendResult(frame.payload);
        if (!delivered.ok()) return delivered.status();
        synic.MessageDone(vp, sint, *delivered);
        return absl::OkStatus();
      });
  exchange.Send(BuildMsgSend(seq, out_seq, vp, sint, message));
}

void RequestEvent(LinkExchange& exchange, MediatedSynic& synic, uint32_t vp, uint16_t flag) {
  const uint64_t seq =
      exchange.Expect(LinkType::kEventGet,
                      [&exchange, &synic, vp, flag](const absl::Status& result, LinkFrame& frame) {
                        absl::Status status = result;
                        if (status.ok()) status = CheckEventFds(exchange, frame);
                        if (status.ok()) {
                          synic.EventReady(vp, flag, std::move(frame.descriptors[0]));
                        } else {
                          synic.EventRefused(vp, flag, status);
                        }
                        return absl::OkStatus();
                      });
  exchange.Send(BuildEventGet(seq, vp, kSynicVmbusSint, flag));
}

}  // namespace

std::unique_ptr<Synic> CreateDirectSynic(LinkExchange& exchange, const GuestMemory& memory,
                                         std::function<void()> on_end_of_message) {
  return std::make_unique<DirectSynic>(memory, [&exchange, done = std::move(on_end_of_message)](
                                                   DirectSynic& synic, uint32_t vp, uint8_t sint) {
    const uint64_t seq = exchange.Expect(
        LinkType::kSintGet,
        [&exchange, &synic, vp, sint, done](const absl::Status& result, LinkFrame& frame) {
          absl::Status status = result;
          if (status.ok()) status = TakeSint(exchange, synic, vp, sint, frame, done);
          if (!status.ok()) synic.SintRefused(vp, sint, status);
          return absl::OkStatus();
        });
    exchange.Send(BuildSintGet(seq, vp, sint));
  });
}

std::unique_ptr<Synic> CreateMediatedSynic(LinkExchange& exchange) {
  return std::make_unique<MediatedSynic>(
      [&exchange, out_seq = uint64_t{0}](MediatedSynic& synic, uint32_t vp, uint8_t sint,
                                         std::span<const std::byte> message) mutable {
        SendMessage(exchange, synic, ++out_seq, vp, sint, message);
      },
      [&exchange](MediatedSynic& synic, uint32_t vp, uint16_t flag) {
        RequestEvent(exchange, synic, vp, flag);
      });
}

}  // namespace vmbfs::hyperv
