// Statements 38 to 44: open, close, modify.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/conformance/imc_client.h"
#include "tests/conformance/statement.h"

namespace vmbfs::conformance {
namespace {

constexpr uint32_t kPage = 4096;

void BothOpenSizesWork(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  for (const uint32_t version : {kVersion3_0, kVersion6_0}) {
    guest.Connect({.version = version});
    RawChannel channel(guest, guest.Imc());
    for (const size_t bytes : {148, 156, 240}) {
      for (const std::byte tail : {std::byte{0}, std::byte{0xFF}}) {
        channel.InitialiseRings();
        channel.Create();
        channel.open().bytes = bytes;
        channel.open().tail = tail;
        channel.Open();
        // Sleeps on the event flag of the channel id, signals the offered connection.
        AgreeOnVersion(guest, channel);
        channel.Close();
        channel.TearDown();
      }
    }
  }
}

void GuestSignalsAreUsed(const Bench& bench, Verdict& verdict) {
  constexpr uint32_t kConnection = 0x12345;
  RawGuest guest(bench.options, verdict);
  guest.Connect({.features = kFeatureGuestSignals});
  if ((guest.features() & kFeatureGuestSignals) == 0) {
    return verdict.Skip("the server does not serve feature 0x01");
  }
  RawChannel channel(guest, guest.Imc());
  const uint32_t channel_id = channel.offer().channel_id();
  for (const uint16_t flag : {uint16_t{1000}, uint16_t{2047}}) {
    channel.InitialiseRings();
    channel.Create();
    channel.open().connection_id = kConnection + flag;
    channel.open().event_flag = flag;
    channel.Open();
    channel.ListenAt(0, flag, kConnection + flag);
    AgreeOnVersion(guest, channel);
    guest.Idle(kAfterOpen);
    verdict.Expect(!guest.FlagIsSet(0, channel_id), "the default event flag was set as well");
    channel.Close();
    channel.TearDown();
  }
  channel.Create();
  for (const uint32_t flag : {2048U, 0xFFFFU}) {
    channel.open().event_flag = static_cast<uint16_t>(flag);
    const uint32_t status = guest.OpenChannel(channel.open());
    verdict.Expect(status == kFailure, "event flag ", flag, ": status ", absl::Hex(status));
  }
  // Where feature 0x01 was agreed to, it has to be there.
  channel.open().bytes = 148;
  guest.ExpectDropped(Open(channel.open()), "an open of 148 bytes with feature 0x01");
  guest.Connect();
  guest.TakeFlag(0, 2047);
  channel.InitialiseRings();
  channel.Create();
  channel.Open();
  channel.ListenAt(0, channel_id, channel.offer().connection_id());
  AgreeOnVersion(guest, channel);
  guest.Idle(kAfterOpen);
  verdict.Expect(!guest.FlagIsSet(0, 2047), "the event flag of the open before was set");
}

// An open of the ring as `change` leaves it is refused, and a good one works
// afterwards.
template <typename Change>
void ExpectRefused(RawGuest& guest, absl::string_view what, const Change& change) {
  if (!guest.verdict().open()) return;
  RawChannel channel(guest, guest.Imc());
  change(channel);
  channel.Create();
  channel.open().open_id = 0xCAFE0001;
  const uint32_t status = guest.OpenChannel(channel.open());
  guest.verdict().Expect(status == kFailure, what, ": status ", absl::Hex(status));
  channel.TearDown();
  // Closed, not open: a close is dropped, its GPADL was free at once.
  RawChannel good(guest, guest.Imc());
  good.Create();
  good.open().open_id = 77;
  good.Open();
  AgreeOnVersion(guest, good);
  good.Close();
  good.TearDown();
}

void BadOpensAreRefused(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict, 64 << 20);
  guest.Connect();
  ExpectRefused(guest, "an unknown GPADL", [](RawChannel& it) { it.open().gpadl_id = 4711; });
  for (const uint32_t offset : {0U, 10U, 11U, 0xFFFFFFFFU}) {
    ExpectRefused(guest, absl::StrCat("downstream offset ", offset),
                  [&](RawChannel& it) { it.open().downstream_page = offset; });
  }
  ExpectRefused(guest, "a range with an offset",
                [](RawChannel& it) { it.gpadl().words[0] = uint64_t{8} << 32 | (10 * kPage - 8); });
  ExpectRefused(guest, "a range that is no whole pages",
                [](RawChannel& it) { it.gpadl().words[0] = 10 * kPage - 8; });
  for (const uint32_t index : {4U, 12'345U, 4 * kPage, 4 * kPage + 8, 0x80000000U, 0xFFFFFFF8U}) {
    for (const size_t word : {kIn, kOut}) {
      ExpectRefused(guest, absl::StrCat("guest to host index ", index),
                    [&](RawChannel& it) { it.to_host().Store(word, index); });
      ExpectRefused(guest, absl::StrCat("host to guest index ", index),
                    [&](RawChannel& it) { it.from_host().Store(word, index); });
    }
  }
}

void RequestsOutOfStateAreDropped(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  RawChannel channel(guest, guest.Imc());
  const uint32_t channel_id = channel.offer().channel_id();
  guest.ExpectDropped(MessageWith(kCloseChannel, {channel_id}), "Close of a closed channel");
  channel.Create();
  OpenFields second = channel.open();
  second.open_id = 2;
  channel.open().open_id = 1;
  // The second one meets a channel that is opening, or open already.
  guest.Post(std::vector<Bytes>{Open(channel.open()), Open(second)});
  const HostMessage result = guest.Await(kOpenResult);
  verdict.Expect(result.field(12) == 1 && result.field(16) == 0, "OpenResult of ",
                 ToHex(result.bytes));
  guest.ExpectSilence("an open of an opening channel");
  guest.ExpectDropped(Open(second), "an open of an open channel");
  AgreeOnVersion(guest, channel);
  guest.ExpectDropped(MessageWith(kRelIdReleased, {channel_id}), "a release of an open channel");
  ExpectServed(guest, channel);
  channel.Close();
  guest.ExpectDropped(MessageWith(kCloseChannel, {channel_id}), "a second Close");
  channel.TearDown();
  channel.InitialiseRings();
  channel.Create();
  channel.Open();
  AgreeOnVersion(guest, channel);
}

void CloseIsSilentAndReopens(const Bench& bench, Verdict& verdict) {
  constexpr uint32_t kRounds = 50;
  ReadyImc imc(bench.options, verdict);
  RawGuest& guest = imc.guest;
  for (uint32_t round = 1; round <= kRounds && verdict.open(); ++round) {
    imc.channel.open().open_id = round;
    // Safe though the host may still be closing: nothing is in the rings.
    guest.Post(std::vector<Bytes>{MessageWith(kCloseChannel, {imc.channel.offer().channel_id()}),
                                  Open(imc.channel.open())});
    const HostMessage result = guest.Await(kOpenResult);
    verdict.Expect(result.field(12) == round && result.field(16) == 0, "round ", round, ": ",
                   ToHex(result.bytes));
    AgreeOnVersion(guest, imc.channel);
  }
  imc.channel.Close();
  guest.ExpectSilence("Close");
}

void NoInterruptsMeansNone(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  RawChannel channel(guest, guest.Imc(), {.target_vp = kNoInterruptVp});
  channel.Create();
  channel.Open();
  AgreeOnVersion(guest, channel);  // looks again and again
  for (int round = 0; round < 20; ++round) ExpectServed(guest, channel);
  guest.Idle(kAfterOpen);
  verdict.Expect(!guest.AnyFlagSet(), "an event flag was set");
}

// An answer's signal comes at `vp` and nowhere else.
void ExpectSignalAt(RawGuest& guest, RawChannel& channel, uint32_t vp) {
  const uint32_t flag = channel.offer().channel_id();
  channel.ListenAt(vp, flag, channel.offer().connection_id());
  for (uint32_t other = 0; other < kProcessors; ++other) guest.TakeFlag(other, flag);
  channel.Send(PipeMessage(kPipeData, VersionRequest()));
  bool signalled = false;
  do {  // a spurious signal may come first
    signalled = guest.AwaitFlag(vp, flag, guest.deadline());
  } while (signalled && !channel.HasPacket());
  guest.verdict().Expect(signalled, "no signal at VP ", vp);
  guest.Idle(Milliseconds(20));
  guest.verdict().Expect(!guest.AnyFlagSet(), "a signal at another VP than ", vp);
  channel.TakeAndFree();
}

void ExpectModifyWorks(RawGuest& guest, uint32_t version) {
  const bool answers = version >= kVersion5_3;
  guest.Connect({.version = version});
  RawChannel channel(guest, guest.Imc());
  channel.Create();
  const auto modify = [&](uint32_t channel_id, uint32_t vp, bool works) {
    guest.Post(MessageWith(kModifyChannel, {channel_id, vp}));
    if (!answers) return guest.ExpectSilence("ModifyChannel below 5.3", Milliseconds(100));
    const HostMessage response = guest.Await(kModifyChannelResponse);
    guest.verdict().Expect(response.field(8) == channel_id && (response.field(12) == 0) == works,
                           "ModifyChannel of channel ", channel_id, " to VP ", vp, ": ",
                           ToHex(response.bytes));
  };
  const uint32_t channel_id = channel.offer().channel_id();
  modify(channel_id, 1, false);  // closed
  channel.Open();
  AgreeOnVersion(guest, channel);
  guest.Idle(kAfterOpen);
  ExpectSignalAt(guest, channel, 0);
  const bool known = version >= kVersion4_1;
  for (const uint32_t vp : {1U, 3U, 2U, 2U, 0U}) {
    modify(channel_id, vp, true);
    ExpectSignalAt(guest, channel, known ? vp : 0);
  }
  modify(channel_id, kNoInterruptVp, false);
  modify(2039, 1, false);
  ExpectSignalAt(guest, channel, 0);
  channel.Close();
  modify(channel_id, 1, false);
}

void ModifyMovesSignals(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  for (const uint32_t version : {kVersion4_0, kVersion4_1, kVersion5_3, kVersion6_0}) {
    ExpectModifyWorks(guest, version);
  }
}

}  // namespace

std::vector<Statement> ChannelStatements() {
  return {
      {38, "opens of 148 and 156 bytes work; the tail is ignored", BothOpenSizesWork},
      {39, "feature 0x01: the open's event flag and connection are used", GuestSignalsAreUsed},
      {40, "OpenResult echoes its ids; bad opens get 0x8000FFFF and leave the channel closed",
       BadOpensAreRefused},
      {41, "open when open, close when closed, release when open: dropped",
       RequestsOutOfStateAreDropped},
      {42, "close makes no message; an immediate open succeeds", CloseIsSilentAndReopens},
      {43, "target VP 0xFFFFFFFF: no event flag is ever set", NoInterruptsMeansNone},
      {44, "ModifyChannel moves signals, answered from 5.3 on", ModifyMovesSignals},
  };
}

}  // namespace vmbfs::conformance
