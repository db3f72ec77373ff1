// GPADLs: the guest's lists of pages (shared/specs/vmbus.md 3.7). The device
// side has no say in them, so that a complete list is accepted at once.

#include "absl/strings/str_cat.h"
#include "hyperv/bus/bus_impl.h"

namespace vmbfs::hyperv {

void Bus::Impl::On(const GpadlHeaderRequest& request) {
  const BusChannel* const channel = channels_.FindById(request.channel_id);
  if (ReactionTo(ChannelRequest::kCreateGpadl, StateOf(channel)) != Reaction::kServe) {
    AnswerGpadl(request.channel_id, request.gpadl_id,
                absl::NotFoundError("the channel is not offered"));
    return;
  }
  AnswerGpadl(request.channel_id, request.gpadl_id,
              gpadls_.Create(request.channel_id, request.gpadl_id, request.range_buffer_bytes,
                             request.range_count, request.words));
}

void Bus::Impl::On(const GpadlBodyRequest& request) {
  const auto appended = gpadls_.Append(request.gpadl_id, request.words);
  if (!appended.has_value()) {
    Drop(absl::StrCat("GpadlBody for GPADL ", request.gpadl_id, ", which is not incomplete"));
    return;
  }
  AnswerGpadl(appended->channel_id, request.gpadl_id, appended->progress);
}

void Bus::Impl::AnswerGpadl(uint32_t channel_id, uint32_t gpadl_id,
                            const absl::StatusOr<GpadlProgress>& progress) {
  if (!progress.ok()) {
    NoteRefusal(absl::StrCat("GPADL ", gpadl_id, " of channel ", channel_id, ": ",
                             progress.status().message()));
    Send(BuildGpadlCreated(channel_id, gpadl_id, kStatusFailure));
  } else if (*progress == GpadlProgress::kAccepted) {
    Send(BuildGpadlCreated(channel_id, gpadl_id, kStatusSuccess));
  }
}

void Bus::Impl::On(const GpadlTeardownRequest& request) {
  const BusChannel* const channel = channels_.FindById(request.channel_id);
  if (ReactionTo(ChannelRequest::kTeardownGpadl, StateOf(channel)) == Reaction::kDrop) {
    DropFor(channel, request.channel_id, "GpadlTeardown");
    return;
  }
  switch (gpadls_.Teardown(request.channel_id, request.gpadl_id)) {
    case GpadlTeardown::kRefused:
      Drop(absl::StrCat("GpadlTeardown of GPADL ", request.gpadl_id, " of channel ",
                        request.channel_id, ", which has no such one"));
      return;
    case GpadlTeardown::kDeferred:
      return;
    case GpadlTeardown::kGone:
      Send(BuildGpadlTorndown(request.gpadl_id));
      return;
  }
}

}  // namespace vmbfs::hyperv
