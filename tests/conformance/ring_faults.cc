// Statements 59 to 61: signals for nothing, and rings that the guest breaks.

#include <unistd.h>

#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/conformance/imc_client.h"
#include "tests/conformance/statement.h"

namespace vmbfs::conformance {
namespace {

constexpr uint32_t kPage = 4096;

// User and system time of a process so far, in clock ticks; nullopt where the
// system does not tell.
std::optional<uint64_t> CpuTicks(pid_t process) {
  std::FILE* const file = std::fopen(absl::StrCat("/proc/", process, "/stat").c_str(), "r");
  if (file == nullptr) return std::nullopt;
  unsigned long long user = 0;
  unsigned long long system = 0;
  const int fields = std::fscanf(
      file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system);
  std::fclose(file);
  if (fields != 2) return std::nullopt;
  return user + system;
}

// We spin for a while: on a busy machine, what we get of a processor is what a
// server that spins would get.
void ExpectIdle(RawGuest& guest, absl::string_view when) {
  constexpr Milliseconds kWatched{1'000};
  constexpr uint64_t kTicksAlways = 5;  // the server's other business
  const auto server = guest.server_process();
  const auto server_before = server ? CpuTicks(*server) : std::nullopt;
  const auto own_before = CpuTicks(getpid());
  if (!guest.verdict().open()) return;
  const Deadline until = std::chrono::steady_clock::now() + kWatched;
  while (std::chrono::steady_clock::now() < until) {
  }
  const auto server_after = server ? CpuTicks(*server) : std::nullopt;
  const auto own_after = CpuTicks(getpid());
  if (!server_before || !server_after || !own_before || !own_after) {
    return guest.verdict().Note("the server's processor time is unknown");
  }
  const uint64_t used = *server_after - *server_before;
  const uint64_t possible = *own_after - *own_before;
  guest.verdict().Expect(used <= kTicksAlways + possible / 2, "the server used ", used,
                         " ticks of processor time ", when, "; who never sleeps gets ", possible);
}

void SpuriousSignalsAreHarmless(const Bench& bench, Verdict& verdict) {
  constexpr int kSignals = 20'000;
  ReadyImc imc(bench.options, verdict);
  imc.guest.Idle(kAfterOpen);
  imc.guest.TakeFlag(0, imc.channel.offer().channel_id());
  const uint32_t in = imc.channel.from_host().Load(kIn);
  const uint32_t out = imc.channel.to_host().Load(kOut);
  const uint64_t interrupts = imc.guest.Interrupts(0);
  for (int count = 0; count < kSignals; ++count) {
    imc.channel.Signal();
    if (count % 16 == 0) imc.guest.SignalByFrame(imc.channel.offer().connection_id());
  }
  imc.guest.Idle(Milliseconds(200));
  verdict.Expect(imc.channel.from_host().Load(kIn) == in && imc.channel.to_host().Load(kOut) == out,
                 "the rings moved");
  verdict.Expect(imc.guest.Interrupts(0) == interrupts && !imc.guest.AnyFlagSet(),
                 "the host signalled back");
  ExpectIdle(imc.guest, "after spurious signals");
  imc.ExpectServed();
  // Requests it has no room to answer make no busy loop either.
  for (int count = 0; count < 8; ++count) {
    imc.channel.Send(PipeMessage(kPipeData, ReadRequest(kReadBytesMax, 0)));
  }
  ExpectIdle(imc.guest, "while its reply ring is full");
  for (int count = 0; count < 8; ++count) {
    verdict.Expect(imc.channel.Receive(imc.guest.deadline()).has_value(), "an answer is missing");
  }
}

struct Corruption {
  std::string what;
  std::function<void(RawChannel&)> commit;
  // A server may have made sure of room for one answer before.
  int answers_max = 0;
};

// A request whose descriptor is not what it should be.
Corruption BadDescriptor(std::string what, uint32_t type, uint32_t offset, uint32_t length,
                         uint32_t flags) {
  return {std::move(what), [=](RawChannel& channel) {
            Bytes packet = PipeMessage(kPipeData, InfoRequest(kHive));
            Put(packet, 0, 2, type);
            Put(packet, 2, 2, offset);
            Put(packet, 4, 2, length);
            Put(packet, 6, 2, flags);
            channel.Put(packet);
            channel.Publish();
          }};
}

std::vector<Corruption> Corruptions() {
  std::vector<Corruption> all;
  for (const uint32_t index : {1U, 4U, 4 * kPage, 4 * kPage + 8, 0x7FFFFFF8U, 0xFFFFFFF8U}) {
    all.push_back({absl::StrCat("`in` of guest to host ", index),
                   [index](RawChannel& channel) { channel.to_host().Store(kIn, index); }});
    all.push_back({absl::StrCat("`out` of host to guest ", index),
                   [index](RawChannel& channel) {
                     channel.from_host().Store(kOut, index);
                     channel.Put(PipeMessage(kPipeData, InfoRequest(kHive)));
                     channel.Put(PipeMessage(kPipeData, InfoRequest(kHive)));
                     channel.Publish();
                   },
                   1});
  }
  all.push_back({"less than a packet", [](RawChannel& channel) {
                   channel.to_host().Store(kIn, channel.put_index() + 16);
                 }});
  // The true packet has 6 units and a trailer.
  const uint32_t good = 6;
  all.push_back(BadDescriptor("length 0", 6, 2, 0, 0));
  all.push_back(BadDescriptor("length 1", 6, 2, 1, 0));
  all.push_back(BadDescriptor("length without room for the trailer", 6, 2, good + 1, 0));
  all.push_back(BadDescriptor("length beyond what is there", 6, 2, good + 2, 0));
  all.push_back(BadDescriptor("length 65535", 6, 2, 0xFFFF, 0));
  all.push_back(BadDescriptor("data offset 0", 6, 0, good, 0));
  all.push_back(BadDescriptor("data offset 1", 6, 1, good, 0));
  all.push_back(BadDescriptor("data offset beyond the length", 6, good + 1, good, 0));
  for (const uint32_t flags : {2U, 0x80U, 0x8000U, 0xFFFFU}) {
    all.push_back(BadDescriptor(absl::StrCat("flags ", flags), 6, 2, good, flags));
  }
  for (const uint32_t type : {0U, 1U, 5U, 7U, 8U, 9U, 0xAU, 0xCU, 0xDU, 0xFFFFU}) {
    all.push_back(BadDescriptor(absl::StrCat("type ", type), type, 2, good, 0));
  }
  all.push_back(BadDescriptor("GPA direct with a header", 9, 4, good, 0));
  all.push_back(BadDescriptor("transfer pages with a header", 7, 4, good, 0));
  return all;
}

void CorruptionStopsTheChannelOnly(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  RawGuest& guest = imc.guest;
  const std::optional<Offer> boot = guest.Boot();
  if (!boot) verdict.Note("boot is not offered: no second channel was watched");
  std::optional<RawChannel> other;
  if (boot && verdict.open()) {
    other.emplace(guest, *boot);
    other->Create();
    other->Open();
    AgreeOnVersion(guest, *other);
  }
  for (const Corruption& corruption : Corruptions()) {
    corruption.commit(imc.channel);
    imc.channel.Signal();
    guest.Idle(Milliseconds(40));
    for (int answer = 0; answer < corruption.answers_max; ++answer) imc.channel.Take();
    verdict.Expect(imc.channel.IsStopped(Milliseconds(20)), "an answer after ", corruption.what);
    // It stays stopped, also when all is well again.
    imc.channel.to_host().Store(kIn, imc.channel.to_host().Load(kOut) & ~7U);
    verdict.Expect(imc.channel.IsStopped(Milliseconds(20)), "it went on after ", corruption.what);
    if (other) {
      verdict.Expect(GetInfo(guest, *other, u"\\").status == kSuccess,
                     "another channel was disturbed by ", corruption.what);
    }
    imc.Reopen();
    if (!verdict.open()) return verdict.Note(absl::StrCat("after ", corruption.what));
  }
  // The host's own words are its own: what is written there is not believed.
  imc.channel.to_host().Store(kOut, 0xFFFFFFFF);
  imc.channel.from_host().Store(kIn, 0xFFFFFFFF);
  imc.channel.Signal();
  imc.Reopen();
  imc.channel.to_host().Store(kIn, 5);
  imc.channel.Signal();
  guest.Idle(Milliseconds(50));
  guest.Unload();
  guest.Connect();
}

}  // namespace

std::vector<Statement> RingFaultStatements() {
  return {
      {59, "spurious signals cause no work and no busy loop", SpuriousSignalsAreHarmless},
      {60, "a corrupt ring stops its channel and nothing else", CorruptionStopsTheChannelOnly},
      {61, "a guest that rewrites rings under the server is harmless", RunsInProcess},
  };
}

}  // namespace vmbfs::conformance
