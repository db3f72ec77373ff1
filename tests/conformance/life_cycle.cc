// Statements 45 to 52: devices that go and come, unload, reset.

#include <algorithm>
#include <cstring>
#include <functional>

#include "absl/strings/str_cat.h"
#include "tests/conformance/host_device.h"
#include "tests/conformance/imc_client.h"
#include "tests/conformance/statement.h"

namespace vmbfs::conformance {
namespace {

constexpr uint32_t kPage = 4096;

// More pages are announced than any message brings.
void PostIncompleteGpadl(RawGuest& guest, uint32_t channel_id) {
  guest.Post(Gpadl({.channel_id = channel_id,
                    .gpadl_id = guest.NewGpadlId(),
                    .words = {40 * kPage, 1, 2},
                    .range_bytes = 41 * 8}));
}

void ARescindEndsTheChannel(const Bench& bench, Verdict& verdict) {
  HostDevice device(bench, verdict);
  ReadyImc imc(bench.options, verdict);
  RawGuest& guest = imc.guest;
  const uint32_t channel_id = imc.channel.offer().channel_id();
  const GpadlFields idle{.channel_id = channel_id,
                         .gpadl_id = guest.NewGpadlId(),
                         .words = RangeWords(kPage, 0, guest.Pages(1))};
  guest.CreateGoodGpadl(idle);
  guest.ExpectDropped(MessageWith(kGpadlTeardown, {channel_id, imc.channel.gpadl_id()}),
                      "a teardown of the open ring");
  device.Detach();
  const HostMessage torndown = guest.Await(kGpadlTorndown);
  verdict.Expect(torndown.field(8) == imc.channel.gpadl_id(), "Torndown of ", torndown.field(8));
  const HostMessage rescind = guest.Await(kRescind);
  verdict.Expect(rescind.field(8) == channel_id, "Rescind of channel ", rescind.field(8));
  guest.ExpectSilence("the Rescind");
  guest.ExpectDropped(MessageWith(kCloseChannel, {channel_id}), "Close of a revoked channel");
  OpenFields open = imc.channel.open();
  open.gpadl_id = idle.gpadl_id;
  guest.ExpectDropped(Open(open), "Open of a revoked channel");
  guest.TearDownGpadl(channel_id, idle.gpadl_id);
  guest.CreateGoodGpadl(idle);
  guest.Post(MessageWith(kRelIdReleased, {channel_id}));
  guest.ExpectSilence("the release");
  guest.ExpectDropped(Open(open), "Open of a released channel");
  device.Attach();
  guest.Await(kOfferChannel);
}

void AReofferWaitsForTheRelease(const Bench& bench, Verdict& verdict) {
  HostDevice device(bench, verdict);
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  const uint32_t channel_id = guest.Imc().channel_id();
  for (int round = 0; round < 3; ++round) {
    device.Detach();
    guest.Await(kRescind);
    device.Attach();
    guest.ExpectSilence("a device that came back before the release", Milliseconds(300));
    guest.Post(MessageWith(kRelIdReleased, {channel_id}));
    const Offer again(guest.Await(kOfferChannel).bytes);
    verdict.Expect(again.channel_id() == channel_id, "offered as channel ", again.channel_id(),
                   " in place of ", channel_id);
  }
  RawChannel channel(guest, guest.Imc());
  channel.Create();
  channel.Open();
  AgreeOnVersion(guest, channel);
}

void AReleaseFreesGpadls(const Bench& bench, Verdict& verdict) {
  HostDevice device(bench, verdict);
  ReadyImc imc(bench.options, verdict);
  RawGuest& guest = imc.guest;
  const GpadlFields idle{.channel_id = imc.channel.offer().channel_id(),
                         .gpadl_id = 0xE1E10,
                         .words = RangeWords(kPage, 0, guest.Pages(1))};
  for (int round = 0; round < 2; ++round) {
    guest.CreateGoodGpadl(idle);
    PostIncompleteGpadl(guest, idle.channel_id);
    device.Detach();
    guest.Await(kRescind);
    guest.Post(MessageWith(kRelIdReleased, {idle.channel_id}));
    guest.Settle();
    device.Attach();
    guest.Await(kOfferChannel);
    imc.channel.InitialiseRings();
    imc.channel.Create();  // with the id it had
    imc.channel.Open();
    AgreeOnVersion(guest, imc.channel);
  }
  guest.CreateGoodGpadl(idle);
}

void NobodyWaitsForARelease(const Bench& bench, Verdict& verdict) {
  HostDevice device(bench, verdict);
  ReadyImc imc(bench.options, verdict);
  RawGuest& guest = imc.guest;
  device.Detach();
  guest.Await(kRescind);
  for (int round = 0; round < 3; ++round) {
    device.Attach();
    device.Detach();
  }
  guest.ExpectSilence("a channel that was rescinded before");
  guest.ResetVm();
  guest.Connect();
  device.Attach();
  guest.Await(kOfferChannel);
  device.Detach();
  guest.Await(kRescind);
  guest.Unload();
  device.Attach();
  guest.Connect();
  RawChannel channel(guest, guest.Imc());
  channel.Create();
  channel.Open();
  AgreeOnVersion(guest, channel);
}

// Whatever was announced, no byte of RAM changes and nothing is signalled.
void ExpectNothingTouched(RawGuest& guest, RawChannel& channel) {
  if (!guest.verdict().open()) return;
  channel.Put(PipeMessage(kPipeData, InfoRequest(kHive)));
  channel.Publish();
  const Bytes before(guest.ram().begin(), guest.ram().end());
  channel.Signal();
  guest.SignalByFrame(channel.offer().connection_id());
  guest.Idle(Milliseconds(300));
  if (std::memcmp(guest.ram().data(), before.data(), before.size()) != 0) {
    const auto differs = std::ranges::mismatch(guest.ram(), before);
    guest.verdict().Fail(absl::StrCat("guest memory was written after UnloadComplete, at GPA ",
                                      differs.in1 - guest.ram().begin()));
  }
  guest.verdict().Expect(!guest.AnyFlagSet(), "an event flag is set after UnloadComplete");
}

// Unload now; results of opens on their way may come before its answer.
void ExpectUnloaded(RawGuest& guest, RawChannel& channel) {
  guest.Post(Message(kUnload));
  for (;;) {
    const auto message = guest.Next(guest.deadline());
    if (!guest.verdict().Expect(message.has_value(), "no UnloadComplete")) return;
    if (message->type() == kUnloadComplete) break;
    guest.verdict().Expect(message->type() == kOpenResult, "message of type ", message->type(),
                           " before UnloadComplete");
  }
  for (uint32_t vp = 0; vp < kProcessors; ++vp) {
    for (uint32_t flag = 0; flag < 2048; ++flag) guest.TakeFlag(vp, flag);
  }
  guest.ExpectSilence("UnloadComplete");
  ExpectNothingTouched(guest, channel);
}

void UnloadEndsEverything(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  const std::optional<Offer> boot = guest.Boot();
  {  // Open, with a GPADL in progress and one idle; the other device opening.
    RawChannel channel(guest, guest.Imc());
    channel.Create();
    channel.Open();
    AgreeOnVersion(guest, channel);
    PostIncompleteGpadl(guest, channel.offer().channel_id());
    if (boot) {
      RawChannel second(guest, *boot);
      second.Create();
      guest.Post(Open(second.open()));
    }
    ExpectUnloaded(guest, channel);
  }
  guest.Connect();
  {  // Opening; closing with another open behind it.
    RawChannel channel(guest, guest.Imc());
    channel.Create();
    guest.Post(std::vector<Bytes>{Open(channel.open()),
                                  MessageWith(kCloseChannel, {channel.offer().channel_id()}),
                                  Open(channel.open())});
    ExpectUnloaded(guest, channel);
  }
  if (bench.control == nullptr) return verdict.Note("a revoked channel needs --control");
  HostDevice device(bench, verdict);
  guest.Connect();
  RawChannel channel(guest, guest.Imc());
  channel.Create();
  channel.Open();
  device.Detach();
  guest.Await(kRescind);
  ExpectUnloaded(guest, channel);
}

void ASecondUnloadIsDropped(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  RawGuest& guest = imc.guest;
  guest.Post(std::vector<Bytes>{Message(kUnload), Message(kUnload)});
  guest.Await(kUnloadComplete);
  guest.ExpectDropped(Message(kUnload), "a second Unload");
  guest.Connect();
  imc.channel.InitialiseRings();
  imc.channel.Create();
  imc.channel.Open();
  AgreeOnVersion(guest, imc.channel);
}

struct ChannelStateCase {
  const char* name;
  std::function<void(RawGuest&, RawChannel&)> reach;  // from offered and closed
};

std::vector<ChannelStateCase> ChannelStateCases() {
  const auto open = [](RawGuest& guest, RawChannel& channel) {
    channel.Create();
    channel.Open();
    AgreeOnVersion(guest, channel);
  };
  const auto close = [](RawChannel& channel) {
    return MessageWith(kCloseChannel, {channel.offer().channel_id()});
  };
  return {
      {"closed", [](RawGuest&, RawChannel&) {}},
      {"GPADL in progress",
       [](RawGuest& guest, RawChannel& channel) {
         PostIncompleteGpadl(guest, channel.offer().channel_id());
         guest.Settle();
       }},
      {"opening",
       [](RawGuest& guest, RawChannel& channel) {
         channel.Create();
         guest.Post(Open(channel.open()));
       }},
      {"open", open},
      {"open, with requests not read yet",
       [open](RawGuest& guest, RawChannel& channel) {
         open(guest, channel);
         for (int count = 0; count < 5; ++count) {
           channel.Send(PipeMessage(kPipeData, ReadRequest(kReadBytesMax, 0)));
         }
       }},
      {"modifying",
       [open](RawGuest& guest, RawChannel& channel) {
         open(guest, channel);
         guest.Post(MessageWith(kModifyChannel, {channel.offer().channel_id(), 1}));
       }},
      {"closing",
       [open, close](RawGuest& guest, RawChannel& channel) {
         open(guest, channel);
         guest.Post(close(channel));
       }},
      {"closing, to be reopened",
       [open, close](RawGuest& guest, RawChannel& channel) {
         open(guest, channel);
         guest.Post(std::vector<Bytes>{close(channel), Open(channel.open())});
       }},
      {"faulted",
       [open](RawGuest& guest, RawChannel& channel) {
         open(guest, channel);
         channel.to_host().Store(kIn, 3);
         channel.Signal();
         guest.Idle(Milliseconds(50));
       }},
      {"tearing down, behind a full slot",
       [open](RawGuest& guest, RawChannel& channel) {
         open(guest, channel);
         guest.HoldSlots(true);
         const uint32_t id = channel.offer().channel_id();
         guest.Post(std::vector<Bytes>{MessageWith(kGpadlTeardown, {id, channel.gpadl_id()}),
                                       MessageWith(kModifyChannel, {id, 1}), Message(kUnload)});
         guest.Idle(Milliseconds(50));
       }},
      {"unloading",
       [open](RawGuest& guest, RawChannel& channel) {
         open(guest, channel);
         guest.Post(Message(kUnload));
       }},
  };
}

void ExpectFreshGuestServed(RawGuest& guest, absl::string_view after) {
  guest.HoldSlots(false);
  guest.ResetVm();
  guest.ExpectSilence(absl::StrCat("a reset of a channel that was ", after), Milliseconds(50));
  guest.Connect();
  RawChannel channel(guest, guest.Imc());
  channel.Create();
  channel.Open();
  AgreeOnVersion(guest, channel);
  ExpectServed(guest, channel);
  guest.ResetVm();
}

void AResetLeavesAFreshServer(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  ExpectFreshGuestServed(guest, "not there");
  for (const ChannelStateCase& each : ChannelStateCases()) {
    guest.Connect();
    RawChannel channel(guest, guest.Imc());
    each.reach(guest, channel);
    ExpectFreshGuestServed(guest, each.name);
    if (!verdict.open()) return verdict.Note(absl::StrCat("the channel was ", each.name));
  }
  if (bench.control == nullptr) return verdict.Note("a revoked channel needs --control");
  HostDevice device(bench, verdict);
  guest.Connect();
  device.Detach();
  guest.Await(kRescind);
  device.Attach();
  ExpectFreshGuestServed(guest, "revoked and offered again");
}

// Survives Unload; its close is answered where the close says.
void ExpectReservedServed(RawGuest& guest, uint32_t channel_id) {
  guest.Unload();
  guest.Post(MessageWith(kCloseReserved, {channel_id, 3, kVmbusSint}));
  const HostMessage closed = guest.Await(kCloseReservedResponse);
  guest.verdict().Expect(closed.vp == 3 && closed.field(8) == channel_id,
                         "CloseReservedResponse at VP ", closed.vp, ": ", ToHex(closed.bytes));
}

void ReservedChannelsAreRefusedOrServed(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  RawChannel channel(guest, guest.Imc());
  const uint32_t channel_id = channel.offer().channel_id();
  channel.Create();
  for (const uint32_t sint : {kVmbusSint, 5U}) {
    guest.Post(MessageWith(
        kOpenReserved, {channel_id, 2, sint, channel.gpadl_id(), channel.open().downstream_page}));
    const HostMessage result = guest.Await(kOpenResult);
    verdict.Expect(result.vp == 2 && result.sint == sint, "OpenResult at VP ", result.vp, ", SINT ",
                   result.sint);
    verdict.Expect(result.field(8) == channel_id && result.field(12) == 0, "OpenResult ",
                   ToHex(result.bytes));
    const uint32_t status = result.field(16);
    if (verdict.open() && status == 0) return ExpectReservedServed(guest, channel_id);
    verdict.Expect(status == kFailure, "OpenResult has status ", absl::Hex(status));
    verdict.Note("reserved channels are refused");
  }
  guest.ExpectDropped(MessageWith(kCloseReserved, {channel_id, 2, kVmbusSint}),
                      "CloseReserved of what is not open");
  channel.Open();
  AgreeOnVersion(guest, channel);
  guest.ExpectDropped(MessageWith(kCloseReserved, {channel_id, 2, kVmbusSint}),
                      "CloseReserved of an ordinary channel");
  ExpectServed(guest, channel);
}

}  // namespace

std::vector<Statement> LifeCycleStatements() {
  return {
      {45, "a Rescind comes once, behind GPADL answers; open and close are dropped after it",
       ARescindEndsTheChannel},
      {46, "a device that comes back waits for the release, and keeps its id",
       AReofferWaitsForTheRelease},
      {47, "a release frees the channel's GPADLs", AReleaseFreesGpadls},
      {48, "a guest that never releases holds up neither removal nor reset",
       NobodyWaitsForARelease},
      {49, "one UnloadComplete, last; nothing is touched afterwards", UnloadEndsEverything},
      {50, "a second Unload gets no answer; a contact works", ASecondUnloadIsDropped},
      {51, "a reset in each channel state leaves a server for a fresh guest",
       AResetLeavesAFreshServer},
      {52, "reserved channels are refused where the request says, or survive Unload",
       ReservedChannelsAreRefusedOrServed},
  };
}

}  // namespace vmbfs::conformance
