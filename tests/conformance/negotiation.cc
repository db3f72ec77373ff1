// Statements 9 to 20: versions, features, where answers go, and what a new
// contact ends.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/conformance/imc_client.h"
#include "tests/conformance/statement.h"

namespace vmbfs::conformance {
namespace {

std::string VersionText(uint32_t version) {
  return absl::StrCat(version >> 16, ".", version & 0xFFFF);
}

bool IsUnsupported(const HostMessage& response) {
  return response.bytes.size() == 16 && AllZero(ByteView(response.bytes).subspan(8));
}

void ExpectAccepted(Verdict& verdict, uint32_t version, const HostMessage& response) {
  const size_t bytes = version >= kVersion6_0 ? 20 : 16;
  verdict.Expect(response.bytes.size() == bytes || (bytes == 20 && response.bytes.size() == 40),
                 VersionText(version), ": the response has ", response.bytes.size(), " bytes");
  verdict.Expect(Get32(response.bytes, 8) == 1, VersionText(version),
                 ": supported, state and padding are ", ToHex(response.bytes));
}

void EachVersionIsAnswered(const Bench& bench, Verdict& verdict) {
  for (const uint32_t connection : {kStandardConnection, kMultiClientConnection}) {
    RawGuest guest(bench.options, verdict);
    for (const uint32_t version : kVersions) {
      ExpectAccepted(verdict, version, guest.SendContact({.version = version}, connection));
    }
  }
}

void TheResponseNamesVersionOrConnection(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  for (const uint32_t version : kVersions) {
    const uint32_t connection =
        version >= kVersion5_0 ? kMultiClientConnection : kStandardConnection;
    const uint32_t field = guest.SendContact({.version = version}, connection).field(12);
    if (version < kVersion5_0) {
      verdict.Expect(field == version, VersionText(version), ": the field at 12 is ", field);
      continue;
    }
    verdict.Expect(field == kStandardConnection || field == kMultiClientConnection,
                   VersionText(version), ": message connection ", field, " is not registered");
    guest.Post(Message(kRequestOffers), field);
    for (size_t count = 0; count <= kOffersMax; ++count) {
      const auto message = guest.Next(guest.deadline());
      verdict.Expect(message.has_value(), "no offers over message connection ", field);
      if (!message || message->type() == kAllOffersDelivered) break;
    }
  }
}

void UnknownVersionsAreUnsupported(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  for (const uint32_t version : {0U, 0x0001FFFFU, 0x00050004U, 0x00060001U, 0x00070000U}) {
    for (const uint32_t connection : {kStandardConnection, kMultiClientConnection}) {
      const HostMessage response = guest.SendContact({.version = version}, connection);
      verdict.Expect(IsUnsupported(response), VersionText(version), ": ", ToHex(response.bytes));
      guest.ExpectSilence("an unsupported version", Milliseconds(30));
    }
  }
  guest.Connect({.version = kVersion3_0});
  guest.SendContact({.version = 0x00070000});
  guest.Connect();
}

// Section 3.8: answered first, then nothing but Resume, Unload and contact.
void ExpectPauseAndResume(RawGuest& guest) {
  guest.Post(Message(kPause));
  guest.Await(kPauseResponse);
  guest.ExpectDropped(Message(kRequestOffers), "RequestOffers while paused");
  guest.ExpectDropped(Message(kResume), "Resume");
  guest.CollectOffers();
  guest.Post(Message(kPause));
  guest.Await(kPauseResponse);
  guest.Unload();
}

void ExpectModifyConnection(RawGuest& guest) {
  const auto modify = [&](uint64_t parent_to_child, uint64_t child_to_parent) {
    Bytes message = Message(kModifyConnection, 24);
    Put(message, 8, 8, parent_to_child);
    Put(message, 16, 8, child_to_parent);
    guest.Post(message);
    return Get(guest.Await(kModifyConnectionResponse).bytes, 8, 1);
  };
  const auto expect = [&](uint64_t parent_to_child, uint64_t child_to_parent, uint64_t state) {
    const uint64_t answered = modify(parent_to_child, child_to_parent);
    guest.verdict().Expect(answered == state, "ModifyConnection to monitor pages ", parent_to_child,
                           " and ", child_to_parent, ": state ", answered);
  };
  const std::vector<uint64_t> pages = guest.Pages(2);
  expect(pages[0] << 12, pages[1] << 12, 0);
  expect(pages[0] << 12, 0, 2);
  expect(0, pages[1] << 12, 2);
  expect(0, 0, 0);
}

void FeaturesAreTheIntersection(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  const auto ask = [&](uint32_t features) {
    const HostMessage response = guest.SendContact({.features = features, .bytes = 56});
    ExpectAccepted(verdict, kVersion6_0, response);
    const uint32_t answered = response.field(16);
    verdict.Expect((answered & ~features) == 0, "asked for ", absl::Hex(features), ", answered ",
                   absl::Hex(answered));
    const bool has_pages = response.bytes.size() == 40;
    verdict.Expect(has_pages == ((answered & kFeatureServerMonitorPages) != 0),
                   "feature 0x40 goes with the 40-byte response only");
    return answered;
  };
  const uint32_t all = ask(0xFFFFFFFF);
  verdict.Expect((all & ~0xFFU) == 0, "unknown features were answered: ", absl::Hex(all));
  verdict.Expect(ask(0) == 0, "features nobody asked for");
  for (uint32_t bit = 1; bit != 0; bit <<= 1) {
    const uint32_t answered = ask(bit);
    verdict.Expect(answered == (all & bit), "asked for ", absl::Hex(bit), " alone, answered ",
                   absl::Hex(answered), "; with all others it is ", absl::Hex(all & bit));
  }
  for (const uint32_t version : {kVersion5_3, kVersion3_0}) {
    const HostMessage response =
        guest.SendContact({.version = version, .features = 0xFF, .bytes = 56});
    ExpectAccepted(verdict, version, response);
  }
  guest.SendContact({.features = 0xFFFFFFFF, .bytes = 56});
  if ((all & kFeatureModifyConnection) != 0) ExpectModifyConnection(guest);
  if ((all & kFeaturePauseResume) != 0) ExpectPauseAndResume(guest);
  guest.Connect();
  guest.ExpectDropped(Message(kPause), "Pause that was not negotiated");
  guest.ExpectDropped(Message(kModifyConnection, 24), "ModifyConnection not negotiated");
  guest.ExpectAlive();
}

void TheClientIdNeedsItsBytes(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.ExpectDropped(Contact({.features = kFeatureClientId, .bytes = 40}),
                      "the client id feature without a client id");
  guest.ExpectDropped(Contact({.features = kFeatureClientId, .bytes = 55}),
                      "the client id feature with 55 bytes");
  ExpectAccepted(verdict, kVersion6_0,
                 guest.SendContact({.features = kFeatureClientId, .bytes = 56}));
  const HostMessage ignored = guest.SendContact({.bytes = 56});
  ExpectAccepted(verdict, kVersion6_0, ignored);
  verdict.Expect(ignored.field(16) == 0, "a client id alone made features ", ignored.field(16));
  for (const uint32_t version : {kVersion2_4, kVersion3_0, kVersion5_3}) {
    ExpectAccepted(verdict, version, guest.SendContact({.version = version, .bytes = 56}));
  }
  guest.CollectOffers();
}

// The two images of section 2.10, the answer with its whole slot.
void TheFirmwareIsAnswered(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.HoldSlots(true);
  guest.Post(
      FromHex("0e000000000000000000060000000000 00000000080000000000000000000000"
              "00000000000000006439dd188a3e424e 86fac8e6b191ee0e"));
  guest.Until([&] { return Get32(guest.Slot(0, kVmbusSint), 0) != 0; });
  const Bytes slot = guest.Slot(0, kVmbusSint);
  Bytes expected = FromHex(
      "01000000140000000000000000000000 0f000000000000000100000001000000"
      "08000000");
  // The message connection and the features are the server's to choose.
  Put(expected, 28, 4, Get32(slot, 28));
  Put(expected, 32, 4, Get32(slot, 32) & kFeatureClientId);
  verdict.Expect(std::ranges::equal(ByteView(slot).first(expected.size()), expected),
                 "the slot of SINT 2 is ", ToHex(slot));
  guest.HoldSlots(false);
  guest.Await(kVersionResponse);
  guest.CollectOffers();
  guest.Imc();
}

void OtherSintsAndTrustLevelsAreNotServed(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  RawGuest& guest = imc.guest;
  for (const uint32_t version : {kVersion5_0, kVersion6_0}) {
    const HostMessage response =
        guest.SendContact({.version = version, .sint = 5}, kMultiClientConnection);
    verdict.Expect(response.sint == 5 && response.vp == 0, "the response went to SINT ",
                   response.sint, " of VP ", response.vp);
    verdict.Expect(IsUnsupported(response), "contact on SINT 5: ", ToHex(response.bytes));
    imc.ExpectServed();
  }
  guest.Post(Contact({.version = kVersion6_0, .vtl = 1}), kMultiClientConnection);
  guest.ExpectSilence("contact for virtual trust level 1");
  imc.ExpectServed();
}

// Everything the host sends in a short life; all must go to one processor.
void ExpectEverythingAt(RawGuest& guest, uint32_t vp) {
  const auto at = [&](const HostMessage& message) {
    guest.verdict().Expect(message.vp == vp, "message of type ", message.type(), " went to VP ",
                           message.vp, " in place of ", vp);
    return message;
  };
  guest.Post(Message(kRequestOffers));
  for (size_t count = 0; count <= kOffersMax; ++count) {
    const auto message = guest.Next(guest.deadline());
    if (!guest.verdict().Expect(message.has_value(), "no offers")) return;
    if (at(*message).type() == kAllOffersDelivered) break;
  }
  guest.Post(Gpadl({.channel_id = 2040, .gpadl_id = 9, .words = {4096, 1}}));
  at(guest.Await(kGpadlCreated));
  guest.Post(Message(kUnload));
  at(guest.Await(kUnloadComplete));
}

void TheTargetProcessorIsUsed(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  for (const uint32_t version : kVersions) {
    const uint32_t vp = version == kVersion2_4 ? 0 : 3;
    const HostMessage response = guest.SendContact({.version = version, .target_vp = 3});
    verdict.Expect(response.vp == vp, VersionText(version), ": the response went to VP ",
                   response.vp);
    ExpectEverythingAt(guest, vp);
  }
}

void MonitorPagesComeInPairs(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  const std::vector<uint64_t> pages = guest.Pages(2);
  const uint64_t first = pages[0] << 12;
  const uint64_t second = pages[1] << 12;
  for (const uint32_t version : kVersions) {
    for (const bool parent : {true, false}) {
      const HostMessage response = guest.SendContact({.version = version,
                                                      .parent_to_child_gpa = parent ? first : 0,
                                                      .child_to_parent_gpa = parent ? 0 : second});
      const uint64_t result = Get(response.bytes, 8, 2);
      verdict.Expect(result == 0x0201, VersionText(version), ", one monitor page: supported ",
                     result & 0xFF, ", state ", result >> 8);
      guest.Post(Message(kRequestOffers));
      guest.ExpectSilence("a contact that failed", Milliseconds(30));
    }
    const HostMessage both = guest.SendContact(
        {.version = version, .parent_to_child_gpa = first, .child_to_parent_gpa = second});
    ExpectAccepted(verdict, version, both);
    ExpectAccepted(verdict, version, guest.SendContact({.version = version}));
  }
}

// The ring pages are no longer looked at: what is put there stays.
void ExpectAbandoned(RawGuest& guest, RawChannel& channel) {
  const uint32_t out = channel.to_host().Load(kOut);
  channel.Put(PipeMessage(kPipeData, VersionRequest()));
  channel.Publish();
  channel.Signal();
  guest.SignalByFrame(channel.offer().connection_id());
  guest.Idle(kSilence);
  guest.verdict().Expect(channel.to_host().Load(kOut) == out,
                         "the ring of the connection before is still read");
}

void AContactEndsWhatWas(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  RawGuest& guest = imc.guest;
  const uint32_t channel_id = imc.channel.offer().channel_id();
  const uint32_t idle_gpadl = guest.NewGpadlId();
  guest.CreateGoodGpadl({.channel_id = channel_id,
                         .gpadl_id = idle_gpadl,
                         .words = RangeWords(4096, 0, guest.Pages(1))});
  // Not answered until its bodies come, and those never do.
  guest.Post(Gpadl({.channel_id = channel_id,
                    .gpadl_id = 777,
                    .words = {40 * 4096, 1, 2},
                    .range_bytes = 41 * 8}));
  for (const uint32_t version : {kVersion6_0, kVersion3_0}) {
    // Await fails on anything that comes before the response.
    ExpectAccepted(verdict, version, guest.SendContact({.version = version}));
    guest.ExpectSilence("the answer to the new contact");
    ExpectAbandoned(guest, imc.channel);
    if (bench.control != nullptr) {
      const auto open = bench.control->IsOpen();
      verdict.Expect(open.ok() && !*open, "the host says that the channel is open");
    }
    // All that the old connection held is free: the same ids work again.
    guest.CollectOffers();
    guest.CreateGoodGpadl({.channel_id = channel_id,
                           .gpadl_id = idle_gpadl,
                           .words = RangeWords(4096, 0, guest.Pages(1))});
    guest.CreateGoodGpadl(
        {.channel_id = channel_id, .gpadl_id = 777, .words = RangeWords(4096, 0, guest.Pages(1))});
    imc.channel.InitialiseRings();
    imc.channel.Create();
    imc.channel.Open();
    AgreeOnVersion(guest, imc.channel);
  }
}

void AnUnsupportedVersionEndsTheConnection(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  const HostMessage response = imc.guest.SendContact({.version = 0x00070000});
  verdict.Expect(IsUnsupported(response), "version 7.0: ", ToHex(response.bytes));
  imc.guest.Post(Message(kRequestOffers));
  imc.guest.Post(Gpadl({.channel_id = 1, .gpadl_id = 99, .words = {4096, 1}}));
  imc.guest.Post(Message(kUnload));
  imc.guest.ExpectSilence("requests after an unsupported version");
  ExpectAbandoned(imc.guest, imc.channel);
  imc.guest.Connect();
}

void NothingIsHeardBeforeContact(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  const auto post_all = [&] {
    for (const uint32_t type :
         {kRequestOffers, kOpenChannel, kCloseChannel, kGpadlHeader, kGpadlBody, kGpadlTeardown,
          kRelIdReleased, kUnload, kOpenReserved, kCloseReserved, kTlConnectRequest, kModifyChannel,
          kModifyConnection, kPause, kResume}) {
      Bytes message = Message(type, kMessageBytes);
      Put(message, 8, 4, 1);
      guest.Post(message);
    }
    guest.ExpectSilence("requests without a connection");
  };
  post_all();
  guest.Connect();
  guest.Unload();
  post_all();
  guest.Connect();
}

}  // namespace

std::vector<Statement> NegotiationStatements() {
  return {
      {9, "each version from 2.4 to 6.0 is answered with its length", EachVersionIsAnswered},
      {10, "the field at 12 is the version, or from 5.0 a message connection that works",
       TheResponseNamesVersionOrConnection},
      {11, "unknown versions get 16 zero bytes; a known one works afterwards",
       UnknownVersionsAreUnsupported},
      {12, "features are those asked for and known; pause and modify connection with them",
       FeaturesAreTheIntersection},
      {13, "the client id feature needs 56 bytes; a client id alone is ignored",
       TheClientIdNeedsItsBytes},
      {14, "the firmware's contact is answered at SINT 2", TheFirmwareIsAnswered},
      {15, "contact on SINT 5 is refused there, for VTL 1 dropped; the connection goes on",
       OtherSintsAndTrustLevelsAreNotServed},
      {16, "the target processor gets all messages from 3.0 on", TheTargetProcessorIsUsed},
      {17, "one monitor page alone fails with state 2", MonitorPagesComeInPairs},
      {18, "contact while connected closes and frees all, without a word", AContactEndsWhatWas},
      {19, "an unsupported version ends the connection", AnUnsupportedVersionEndsTheConnection},
      {20, "without a connection all but contact is dropped", NothingIsHeardBeforeContact},
  };
}

}  // namespace vmbfs::conformance
