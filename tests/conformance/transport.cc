// Statements 1 to 8: slots, flags, and messages that are none.

#include "absl/strings/str_cat.h"
#include "tests/conformance/imc_client.h"
#include "tests/conformance/statement.h"

namespace vmbfs::conformance {
namespace {

constexpr uint32_t kUnknownChannel = 2041;
constexpr Milliseconds kSlotFullFor{2'500};

// Provokes every answer that needs no action of the host; each message taken
// from a slot was checked for type 1 and its exact length.
void EveryAnswerHasItsSize(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.SendContact({.version = 0x00070000});
  for (const uint32_t version : kVersions) guest.SendContact({.version = version});
  guest.CollectOffers();
  RawChannel channel(guest, guest.Imc());
  channel.Create();
  channel.open().gpadl_id = channel.gpadl_id() + 1;
  guest.Post(Open(channel.open()));
  guest.Await(kOpenResult);  // refused
  channel.open().gpadl_id = channel.gpadl_id();
  channel.Open();
  guest.Post(MessageWith(kModifyChannel, {channel.offer().channel_id(), 1}));
  guest.Await(kModifyChannelResponse);
  guest.Post(MessageWith(kModifyChannel, {kUnknownChannel, 1}));
  guest.Await(kModifyChannelResponse);  // refused
  guest.ExpectAlive();                  // a GPADL that is refused
  guest.Post(Message(kTlConnectRequest, 40));
  guest.Await(kTlConnectResult);
  channel.Close();
  channel.TearDown();
  guest.Unload();
}

// Posts `count` requests that are answered in order, each with its own id.
void PostNumbered(RawGuest& guest, uint32_t count) {
  for (uint32_t id = 1; id <= count; ++id) {
    guest.Post(Gpadl({.channel_id = kUnknownChannel, .gpadl_id = id, .words = {4096, 1}}));
  }
}

void AFullSlotLosesNothing(const Bench& bench, Verdict& verdict) {
  constexpr uint32_t kAnswers = 16;
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  for (int round = 0; round < 2; ++round) {
    guest.HoldSlots(true);
    PostNumbered(guest, kAnswers);
    guest.Until([&] { return Get32(guest.Slot(0, kVmbusSint), 0) != 0; });
    const Bytes full = guest.Slot(0, kVmbusSint);
    guest.Idle(kSlotFullFor);
    Bytes later = guest.Slot(0, kVmbusSint);
    verdict.Expect(Get32(full, 0) == 1 && Get32(full, 16) == kGpadlCreated,
                   "no answer in the slot: ", ToHex(full));
    verdict.Expect((later[5] & std::byte{1}) == std::byte{1},
                   "the pending flag is clear though answers are queued");
    later[5] = full[5];
    verdict.Expect(later == full, "a slot that was not empty was overwritten");
    guest.HoldSlots(false);
    for (uint32_t id = 1; id <= kAnswers; ++id) {
      const HostMessage created = guest.Await(kGpadlCreated);
      verdict.Expect(created.field(12) == id, "answer ", created.field(12), " in place of ", id);
      // The next one had to be waiting: nobody asks for an EOM otherwise.
      if (id == 1) verdict.Expect(created.pending, "no pending flag on the first answer");
    }
    guest.ExpectSilence("the last answer");
  }
}

void ASetFlagRaisesNoInterrupt(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  RawGuest& guest = imc.guest;
  const uint32_t flag = imc.channel.offer().channel_id();
  guest.Idle(kAfterOpen);
  guest.TakeFlag(0, flag);
  // An answer into an empty ring, whose signal is due.
  const auto provoke = [&] {
    while (imc.channel.TakeAndFree()) {
    }
    const uint64_t before = guest.Interrupts(0);
    imc.channel.Send(PipeMessage(kPipeData, InfoRequest(kHive)));
    guest.Until([&] { return imc.channel.HasPacket(); });
    guest.Idle(Milliseconds(100));
    return guest.Interrupts(0) - before;
  };
  const uint64_t first = provoke();
  verdict.Expect(first == 1, "a flag that was clear raised ", first, " interrupts");
  verdict.Expect(guest.FlagIsSet(0, flag), "the event flag is not set");
  for (int round = 0; round < 3; ++round) {
    const uint64_t again = provoke();
    verdict.Expect(again == 0, "a flag that was set raised ", again, " more interrupts");
  }
  guest.TakeFlag(0, flag);
  const uint64_t last = provoke();
  verdict.Expect(last == 1 && guest.FlagIsSet(0, flag), "after the flag was cleared: ", last,
                 " interrupts");
}

void SignalsOfClosedChannelsAreHarmless(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  const auto signal = [&](uint32_t connection) {
    for (int count = 0; count < 100; ++count) {
      guest.Signal(connection);
      guest.SignalByFrame(connection);
    }
  };
  signal(0x2001);  // before any contact
  guest.Connect();
  RawChannel channel(guest, guest.Imc());
  const uint32_t connection = channel.offer().connection_id();
  for (const uint32_t other : {0U, 2U, 3U, 0x2000U, 0x27FFU, 0xFFFFFFFFU}) signal(other);
  signal(connection);
  for (int round = 0; round < 3; ++round) {
    channel.InitialiseRings();
    channel.Create();
    signal(connection);
    channel.Open();
    AgreeOnVersion(guest, channel);
    channel.Close();
    signal(connection);
    guest.ExpectSilence("signals on a closed channel", Milliseconds(50));
    channel.TearDown();
    signal(connection);
  }
}

void MalformedMessagesAreDropped(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  const auto post_all = [&] {
    for (size_t bytes = 0; bytes < 8; ++bytes) {
      for (const uint32_t type : {kInitiateContact, kRequestOffers, kUnload}) {
        Bytes message = Message(type, 8);
        message.resize(bytes);
        guest.Post(message);
      }
    }
    for (const uint32_t type : {0U, 30U, 0xFFFFFFFFU}) {
      for (const size_t bytes : {8, 20, 240}) guest.Post(Message(type, bytes));
    }
    guest.ExpectSilence("messages that are none");
  };
  post_all();
  guest.Connect();
  post_all();
  RawChannel channel(guest, guest.Imc());
  channel.Create();
  channel.Open();
  post_all();
  AgreeOnVersion(guest, channel);
  guest.Unload();
}

void HostMessagesFromTheGuestAreDropped(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  RawGuest& guest = imc.guest;
  const uint32_t channel_id = imc.channel.offer().channel_id();
  const auto post_all = [&] {
    for (const uint32_t type : HostMessageTypes()) {
      for (const size_t bytes : {8, 12, 16, 20, 44, 196, 240}) {
        Bytes message = Message(type, bytes);
        if (bytes >= 12) Put(message, 8, 4, channel_id);
        guest.Post(message);
      }
      guest.Settle();
    }
    guest.ExpectSilence("host to guest types");
  };
  post_all();
  imc.ExpectServed();
  guest.Unload();
  post_all();
  guest.Connect();
}

void IsTheVmms(const Bench&, Verdict& verdict) { verdict.Skip("the VMM's"); }

}  // namespace

std::vector<Statement> TransportStatements() {
  return {
      {1, "every host message has slot type 1 and its exact length", EveryAnswerHasItsSize},
      {2, "a slot kept full loses, doubles and reorders nothing; pending flag and EOM work",
       AFullSlotLosesNothing},
      {3, "posts succeed before any contact; an unregistered connection gives 0x12", IsTheVmms},
      {4, "a post above 240 bytes fails; a flood gives 0x13 and loses nothing", IsTheVmms},
      {5, "an event flag that is set raises no second interrupt", ASetFlagRaisesNoInterrupt},
      {6, "signals for channels that are not open are harmless",
       SignalsOfClosedChannelsAreHarmless},
      {7, "short messages and types 0, 30, 0xFFFFFFFF are dropped", MalformedMessagesAreDropped},
      {8, "host to guest types from the guest are dropped", HostMessagesFromTheGuestAreDropped},
  };
}

}  // namespace vmbfs::conformance
