// Statements 28 to 37: lists of guest pages.

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "tests/conformance/imc_client.h"
#include "tests/conformance/statement.h"

namespace vmbfs::conformance {
namespace {

constexpr uint32_t kPage = 4096;

std::vector<uint64_t> WholePages(RawGuest& guest, size_t count) {
  return RangeWords(static_cast<uint32_t>(count * kPage), 0, guest.Pages(count));
}

void AllSizesAreAccepted(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  const uint32_t channel_id = guest.Imc().channel_id();
  const std::vector<uint64_t> pages = guest.Pages(1024);
  for (const bool padded : {false, true}) {
    for (const uint32_t count : {1U, 26U, 27U, 54U, 55U, 1024U}) {
      const uint32_t id = guest.NewGpadlId();
      guest.CreateGoodGpadl(
          {.channel_id = channel_id,
           .gpadl_id = id,
           .words = RangeWords(count * kPage, 0, {pages.begin(), pages.begin() + count}),
           .padded = padded});
      guest.TearDownGpadl(channel_id, id);
    }
  }
}

// A ring that needs two bodies is read and written by the host, so that a word
// out of place shows.
void BodiesAreTakenInOrder(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  const std::vector<uint32_t> numberings[] = {{0}, {1, 2, 3}, {0x9E3779B9, 7, 0xFFFFFFFF}};
  for (const std::vector<uint32_t>& numbers : numberings) {
    for (const bool padded : {false, true}) {
      RawChannel channel(
          guest, guest.Imc(),
          {.to_host_pages = 34, .from_host_pages = 34, .layout = hyperv::RamLayout::kScattered});
      channel.gpadl().body_numbers = numbers;
      channel.gpadl().padded = padded;
      channel.gpadl().padding = std::byte{0xA5};
      channel.Create();
      channel.Open();
      AgreeOnVersion(guest, channel);
      // Through the whole ring to the host, so that each of its pages is used.
      for (uint32_t sent = 0; sent < 34 * kPage && verdict.open(); sent += 8192) {
        channel.Send(PipeMessage(kPipeData, VersionRequest(), 8192));
        verdict.Expect(channel.Receive(guest.deadline()).has_value(), "no answer");
      }
      channel.Close();
      channel.TearDown();
    }
  }
  // Junk words behind the range buffer's length, within the message's size.
  GpadlFields fields{.channel_id = guest.Imc().channel_id(),
                     .gpadl_id = guest.NewGpadlId(),
                     .words = WholePages(guest, 20)};
  fields.range_bytes = 8 * 21;
  fields.words.resize(26, ~uint64_t{0});
  guest.CreateGoodGpadl(fields);
}

void CreatedEchoesItsIds(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  const uint32_t channel_id = guest.Imc().channel_id();
  for (const uint32_t id : {1U, 255U, 0xE1E10U, 0x80000000U, 0xFFFFFFFFU}) {
    // CreateGoodGpadl checks the echo and the status.
    guest.CreateGoodGpadl(
        {.channel_id = channel_id, .gpadl_id = id, .words = WholePages(guest, 1)});
    guest.TearDownGpadl(channel_id, id);
  }
  const uint32_t refused = guest.CreateGpadl(
      {.channel_id = 0xFFFFFFFF, .gpadl_id = 0xE1E11, .words = WholePages(guest, 1)});
  verdict.Expect(refused != 0, "a GPADL of channel 0xFFFFFFFF was accepted");
}

struct BadGpadl {
  const char* what;
  std::vector<uint64_t> words;
  uint32_t range_count = 1;
  std::optional<uint32_t> range_bytes{};
};

std::vector<BadGpadl> BadGpadls() {
  const std::vector<uint64_t> one = {1};
  return {
      {"a range of 0 bytes", RangeWords(0, 0, one)},
      {"a range of 0 bytes without pages", RangeWords(0, 0, {})},
      {"offset 4096", RangeWords(kPage, kPage, {1, 2})},
      {"offset 0xFFFFFFFF", RangeWords(kPage, 0xFFFFFFFF, {1, 2})},
      {"count and offset that overflow", RangeWords(0xFFFFFFFF, 4095, one)},
      {"count that overflows", RangeWords(0xFFFFF001, 0, one)},
      {"too few page frames", RangeWords(3 * kPage, 0, {1, 2})},
      {"one byte too many for its page frames", RangeWords(2 * kPage + 1, 0, {1, 2})},
      {"an offset that needs one page more", RangeWords(2 * kPage, 1, {1, 2})},
      {"two ranges announced, one there", RangeWords(kPage, 0, one), 2},
      {"65535 ranges announced", RangeWords(kPage, 0, one), 65535},
      {"a range length shorter than its range", RangeWords(2 * kPage, 0, {1, 2}), 1, 16},
      {"a range length of 7 bytes", RangeWords(kPage, 0, one), 1, 7},
  };
}

void BadListsAreRefused(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  const Offer offer = guest.Imc();
  constexpr uint32_t kId = 5;
  const auto expect_reusable = [&](absl::string_view after) {
    const uint32_t status = guest.CreateGpadl(
        {.channel_id = offer.channel_id(), .gpadl_id = kId, .words = WholePages(guest, 2)});
    verdict.Expect(status == 0, "the id is not reusable after ", after);
    guest.TearDownGpadl(offer.channel_id(), kId);
  };
  for (const uint32_t unknown : {0U, offer.channel_id() + 1000, 2047U, 0xFFFFFFFFU}) {
    const uint32_t status =
        guest.CreateGpadl({.channel_id = unknown, .gpadl_id = kId, .words = WholePages(guest, 1)});
    verdict.Expect(status != 0, "a GPADL of the unknown channel ", unknown, " was accepted");
    expect_reusable("an unknown channel");
  }
  for (const BadGpadl& bad : BadGpadls()) {
    const uint32_t status = guest.CreateGpadl({.channel_id = offer.channel_id(),
                                               .gpadl_id = kId,
                                               .words = bad.words,
                                               .range_count = bad.range_count,
                                               .range_bytes = bad.range_bytes});
    verdict.Expect(status != 0, "accepted: ", bad.what);
    expect_reusable(bad.what);
  }
  // Pages outside RAM may be noticed when they are mapped only.
  for (const uint64_t frame : {kRamBytes / kPage, uint64_t{1} << 40, ~uint64_t{0}}) {
    RawChannel channel(guest, offer);
    channel.gpadl().gpadl_id = channel.open().gpadl_id = kId;
    channel.gpadl().words.back() = frame;
    if (guest.CreateGpadl(channel.gpadl()) == 0) {
      const uint32_t status = guest.OpenChannel(channel.open());
      verdict.Expect(status != 0, "a ring outside RAM was opened: page frame ", absl::Hex(frame));
      guest.TearDownGpadl(offer.channel_id(), kId);
    }
    expect_reusable("a page frame outside RAM");
  }
}

void ADuplicateDisturbsNothing(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  RawChannel channel(guest, guest.Imc());
  channel.Create();
  for (const size_t pages : {1, 10, 60}) {
    GpadlFields duplicate = channel.gpadl();
    duplicate.words = WholePages(guest, pages);
    // Refused at its header: bodies that follow belong to nothing.
    const uint32_t status = guest.CreateGpadl(duplicate);
    verdict.Expect(status != 0, "a second GPADL with the same id was accepted");
  }
  channel.Open();
  AgreeOnVersion(guest, channel);
  const uint32_t open = guest.CreateGpadl(channel.gpadl());
  verdict.Expect(open != 0, "a second GPADL with the open ring's id was accepted");
  ExpectServed(guest, channel);
}

void IncompleteIdsAreUnique(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  const Offer imc = guest.Imc();
  const std::optional<Offer> boot = guest.Boot();
  if (!boot) return verdict.Skip("needs a second device: boot is not offered");
  constexpr uint32_t kId = 12;
  GpadlFields fields{
      .channel_id = imc.channel_id(), .gpadl_id = kId, .words = WholePages(guest, 40)};
  const std::vector<Bytes> messages = Gpadl(fields);
  guest.Post(messages[0]);
  GpadlFields other = fields;
  other.channel_id = boot->channel_id();
  guest.Post(Gpadl(other)[0]);
  const HostMessage refused = guest.Await(kGpadlCreated);
  verdict.Expect(refused.field(8) == boot->channel_id() && refused.field(16) != 0,
                 "the second incomplete GPADL with one id: ", ToHex(refused.bytes));
  guest.Post(messages[1]);
  const HostMessage created = guest.Await(kGpadlCreated);
  verdict.Expect(created.field(8) == imc.channel_id() && created.field(16) == 0,
                 "the first incomplete GPADL: ", ToHex(created.bytes));
  guest.CreateGoodGpadl(other);
  guest.TearDownGpadl(imc.channel_id(), kId);
  guest.TearDownGpadl(boot->channel_id(), kId);
}

void StrayBodiesAreDropped(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  RawGuest& guest = imc.guest;
  Bytes body = MessageWith(kGpadlBody, {0, 4711, 1, 0});
  guest.ExpectDropped(body, "a body of an unknown GPADL");
  Put(body, 12, 4, imc.channel.gpadl_id());
  guest.ExpectDropped(body, "a body of a complete GPADL");
  imc.ExpectServed();
  imc.Reopen();
}

void TeardownWaitsForTheClose(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  RawGuest& guest = imc.guest;
  const Bytes teardown =
      MessageWith(kGpadlTeardown, {imc.channel.offer().channel_id(), imc.channel.gpadl_id()});
  for (int round = 0; round < 3; ++round) {
    guest.ExpectDropped(teardown, "a teardown of the open ring");
    imc.ExpectServed();
    imc.channel.Close();
    const HostMessage torndown = guest.Await(kGpadlTorndown);
    verdict.Expect(torndown.field(8) == imc.channel.gpadl_id(), "Torndown of ", torndown.field(8));
    guest.ExpectDropped(teardown, "a second teardown");
    imc.channel.InitialiseRings();
    imc.channel.Create();
    imc.channel.TearDown();
    guest.ExpectDropped(teardown, "a second teardown of a closed ring");
    imc.channel.Create();
    imc.channel.Open();
    AgreeOnVersion(guest, imc.channel);
  }
}

void SeveralRangesAreNoRing(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  RawChannel channel(guest, guest.Imc());
  std::vector<uint64_t> words = RangeWords(4 * kPage, 0, guest.Pages(4));
  const std::vector<uint64_t> odd = RangeWords(5 * kPage, 100, guest.Pages(6));
  const std::vector<uint64_t> small = RangeWords(1, 4095, guest.Pages(1));
  words.insert(words.end(), odd.begin(), odd.end());
  words.insert(words.end(), small.begin(), small.end());
  GpadlFields fields{.channel_id = channel.offer().channel_id(),
                     .gpadl_id = guest.NewGpadlId(),
                     .words = words,
                     .range_count = 3};
  guest.CreateGoodGpadl(fields);
  OpenFields open = channel.open();
  open.gpadl_id = fields.gpadl_id;
  const uint32_t status = guest.OpenChannel(open);
  verdict.Expect(status == kFailure, "a ring of three ranges: status ", absl::Hex(status));
  // Counted as one range less or more, the same words are too few.
  fields.gpadl_id = guest.NewGpadlId();
  fields.range_count = 4;
  verdict.Expect(guest.CreateGpadl(fields) != 0, "four ranges were found in three");
  channel.Create();
  channel.Open();
  AgreeOnVersion(guest, channel);
}

void GpadlsHaveALimit(const Bench& bench, Verdict& verdict) {
  constexpr uint32_t kCreates = 100'000;
  RawGuest guest(bench.options, verdict);
  guest.Connect();
  const uint32_t channel_id = guest.Imc().channel_id();
  const std::vector<uint64_t> words = WholePages(guest, 1);
  uint32_t accepted = 0;
  uint32_t answered = 0;
  const auto take = [&] {
    const HostMessage created = guest.Await(kGpadlCreated);
    if (created.field(16) == 0) ++accepted;
    ++answered;
  };
  for (uint32_t id = 1; id <= kCreates && verdict.open(); ++id) {
    guest.Post(Gpadl({.channel_id = channel_id, .gpadl_id = id, .words = words}));
    if (id - answered >= 16) take();
  }
  while (answered < kCreates && verdict.open()) take();
  verdict.Expect(accepted > 0 && accepted < kCreates, accepted, " of ", kCreates,
                 " GPADLs were accepted");
  verdict.Note(absl::StrCat("the limit is ", accepted, " GPADLs of one page"));
  guest.Connect();
  RawChannel channel(guest, guest.Imc());
  channel.Create();
  channel.Open();
  AgreeOnVersion(guest, channel);
  ExpectServed(guest, channel);
}

}  // namespace

std::vector<Statement> GpadlStatements() {
  return {
      {28, "1 to 1024 pages create, with exact and padded messages", AllSizesAreAccepted},
      {29, "body numbers mean nothing; junk behind the length is ignored", BodiesAreTakenInOrder},
      {30, "GpadlCreated echoes its ids, with status 0", CreatedEchoesItsIds},
      {31, "malformed lists are refused, and their id is reusable", BadListsAreRefused},
      {32, "a duplicate create leaves the first one as it was", ADuplicateDisturbsNothing},
      {33, "ids of incomplete GPADLs are unique over all channels", IncompleteIdsAreUnique},
      {34, "bodies for unknown or complete GPADLs are dropped", StrayBodiesAreDropped},
      {35, "one Torndown for a teardown, after the close of a ring in use",
       TeardownWaitsForTheClose},
      {36, "several ranges are parsed, and make no ring", SeveralRangesAreNoRing},
      {37, "100,000 creates reach a limit; a new contact works", GpadlsHaveALimit},
  };
}

}  // namespace vmbfs::conformance
