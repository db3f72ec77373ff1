// Statements 62 to 66: pipe messages, and buffers that a guest registers.

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/conformance/imc_client.h"
#include "tests/conformance/statement.h"

namespace vmbfs::conformance {
namespace {

constexpr uint32_t kPage = 4096;
constexpr size_t kRdmaResponseBytes = 16;
constexpr uint32_t kMebibyte = 1 << 20;

void PipeErrorsStopThePipe(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  const Bytes request = InfoRequest(kHive);
  for (const uint32_t more : {3U, 4U, 1000U, 0x7FFFFFFFU}) {
    Bytes packet = PipeMessage(kPipeData, request);
    Put(packet, 20, 4, request.size() + more);
    imc.channel.Send(packet);
    imc.ExpectStopped(absl::StrCat("data of ", more, " bytes more than the packet has"));
  }
  for (const uint32_t type : {0U, 2U, 6U, 0xFFFFFFFFU}) {
    imc.channel.Send(PipeMessage(type, request));
    imc.ExpectStopped(absl::StrCat("pipe message type ", type));
  }
  for (const size_t bytes : {0, 4, 100}) {
    imc.channel.Send(PipeMessage(5, Bytes(bytes)));
    imc.ExpectServed();
  }
  Bytes completion = PipeMessage(kPipeData, request);
  Put(completion, 6, 2, 1);
  imc.channel.Send(completion);
  // Served or stopped, but no completion packet: Take would tell.
  imc.channel.Receive(std::chrono::steady_clock::now() + kSilence);
  imc.Reopen();
}

bool OffersRdma(ReadyImc& imc) { return GetInfo(imc.guest, imc.channel).rdma; }

// Where RDMA reads are offered: reads through a registration and looks at it.
ReadResult ReadRdma(ReadyImc& imc, const RdmaFields& fields) {
  const Bytes answer = imc.channel.Exchange(RdmaRequest(fields));
  Verdict& verdict = imc.guest.verdict();
  verdict.Expect(answer.size() == kRdmaResponseBytes && Get32(answer, 0) == 8,
                 "RDMA response: ", ToHex(answer));
  verdict.Expect(Get32(answer, 12) <= fields.count, "RDMA read of ", fields.count, " bytes made ",
                 Get32(answer, 12));
  return {.status = Get32(answer, 8), .data = Bytes(std::min(Get32(answer, 12), fields.count))};
}

void SetUpIsParsedUnaligned(const Bench& bench, Verdict& verdict) {
  RawGuest guest(bench.options, verdict, 96 << 20);
  guest.Connect();
  RawChannel channel(guest, guest.Imc());
  channel.Create();
  channel.Open();
  AgreeOnVersion(guest, channel);
  // Example 5.3, byte by byte, at the ring offset that its trailer names.
  verdict.Expect(channel.put_index() == 0x30, "the version request has 48 ring bytes");
  const Bytes example = FromHex(
      "06000200080000000000000000000000 03000000210000000100000001010000"
      "00001800000008000000500000000000 00015000000000000000000000000000");
  channel.SendDeferred(example);
  const FileInfo info = GetInfo(guest, channel);
  verdict.Expect(info.status == kSuccess, "a request behind a registration: ", info.status);
  if (!verdict.open()) return;
  if (!info.rdma) {
    return verdict.Skip(
        "RDMA reads are not offered: the registration did no harm, its parsing "
        "cannot be seen");
  }
  const auto count = static_cast<uint32_t>(std::min<uint64_t>(info.bytes, 0x1800));
  const std::span<std::byte> around = guest.ram().subspan(0x5000000, 2 * kPage);
  std::ranges::fill(around, std::byte{0xA5});
  const Bytes answer = channel.Exchange(RdmaRequest({.count = count}));
  verdict.Expect(Get32(answer, 8) == kSuccess && Get32(answer, 12) == count, ToHex(answer));
  const ReadResult direct = ReadFile(guest, channel, count, 0);
  verdict.Expect(std::ranges::equal(around.subspan(0x800, count), direct.data),
                 "the registration does not begin at offset 0x800 of page 0x5000");
  verdict.Expect(std::ranges::all_of(around.first(0x800),
                                     [](std::byte each) { return each == std::byte{0xA5}; }),
                 "bytes before the registration were written");
}

void RegistrationsNeedNoSignal(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  const std::vector<uint64_t> pages = imc.guest.Pages(4);
  const Bytes set_up = PipeMessage(kPipeSetUp, SetUpGpaDirect(1, true, 4 * kPage, 0, pages));
  const Bytes tear_down = PipeMessage(kPipeTearDown, FromHex("01000000"));
  for (int round = 0; round < 20 && verdict.open(); ++round) {
    imc.guest.Idle(Milliseconds(5));
    // Two packets and one signal; then one that nobody sees until the next.
    imc.channel.SendDeferred(set_up);
    imc.ExpectServed();
    imc.channel.SendDeferred(tear_down);
    imc.guest.Idle(Milliseconds(5));
    imc.ExpectServed();
  }
  const bool rdma = verdict.open() && OffersRdma(imc);
  if (rdma) {
    const uint32_t status = ReadRdma(imc, {.count = 1}).status;
    verdict.Expect(status == kError, "RDMA read after TEARDOWN: status ", status);
  }
  // Left behind at the close: nothing of it is there in the next life.
  imc.channel.SendDeferred(set_up);
  imc.ExpectServed();
  imc.channel.SendDeferred(tear_down);
  imc.channel.SendDeferred(set_up);
  imc.Reopen();
  imc.ExpectServed();
  if (rdma) {
    const uint32_t status = ReadRdma(imc, {.count = 1}).status;
    verdict.Expect(status == kError, "RDMA read after a reopen: status ", status);
  }
}

// A buffer of 7 MiB that begins inside a page, registered with a handle.
struct RdmaBuffer {
  RdmaBuffer(ReadyImc& imc, uint32_t handle, bool writable)
      : imc_(imc), pages_(imc.guest.Pages(7 * kMebibyte / kPage + 1)) {
    Fill();
    imc.channel.Send(
        PipeMessage(kPipeSetUp, SetUpGpaDirect(handle, writable, kBytes, kOffset, pages_)));
  }

  void Fill() {
    for (const uint64_t page : pages_) {
      std::ranges::fill(imc_.guest.Page(page), std::byte{0xA5});
    }
  }
  // Whether it holds `data` at `token_offset` and is untouched elsewhere.
  bool Holds(uint64_t token_offset, ByteView data) const {
    size_t index = 0;
    for (const uint64_t page : pages_) {
      for (const std::byte each : imc_.guest.Page(page)) {
        const size_t from = kOffset + token_offset;
        const bool inside = index >= from && index < from + data.size();
        if (each != (inside ? data[index - from] : std::byte{0xA5})) return false;
        ++index;
      }
    }
    return true;
  }

  static constexpr uint32_t kOffset = 0x123;
  static constexpr uint32_t kBytes = 7 * kMebibyte;

 private:
  ReadyImc& imc_;
  const std::vector<uint64_t> pages_;
};

void RdmaWritesWhatWasAsked(const Bench& bench, Verdict& verdict) {
  ReadyImc imc(bench.options, verdict);
  if (!verdict.open()) return;
  const FileInfo info = GetInfo(imc.guest, imc.channel);
  if (!info.rdma) return verdict.Skip("RDMA reads are not offered");
  RdmaBuffer buffer(imc, 1, true);
  RdmaBuffer read_only(imc, 2, false);
  Bytes file;
  const auto wanted = std::min<uint64_t>(info.bytes, RdmaBuffer::kBytes);
  while (file.size() < wanted && verdict.open()) {
    Append(file, ReadFile(imc.guest, imc.channel, kReadBytesMax, file.size()).data);
  }
  file.resize(wanted);
  const ReadResult whole = ReadRdma(imc, {.handle = 1, .count = RdmaBuffer::kBytes});
  verdict.Expect(whole.status == kSuccess && whole.data.size() == wanted, "RDMA read: status ",
                 whole.status, ", ", whole.data.size(), " bytes");
  verdict.Expect(!verdict.open() || buffer.Holds(0, file), "other bytes than the file's");
  buffer.Fill();
  const RdmaFields refused[] = {
      {.handle = 2, .count = 100},
      {.handle = 9, .count = 100},
      {.handle = 1, .count = 100, .token_offset = RdmaBuffer::kBytes - 99},
      {.handle = 1, .count = 100, .token_offset = ~uint64_t{0} - 50},
  };
  for (const RdmaFields& fields : refused) {
    const ReadResult read = ReadRdma(imc, fields);
    verdict.Expect(read.status == kError && read.data.empty(), "RDMA read of handle ",
                   fields.handle, " at ", fields.token_offset, ": status ", read.status);
  }
  verdict.Expect(!verdict.open() || (buffer.Holds(0, {}) && read_only.Holds(0, {})),
                 "a refused RDMA read wrote memory");
}

}  // namespace

std::vector<Statement> PipeStatements() {
  return {
      {62, "data beyond the packet and unknown pipe types stop the pipe, type 5 is ignored",
       PipeErrorsStopThePipe},
      {63, "byte mode: end of stream and partial reads", RunsInProcess},
      {64, "a registration is parsed from unaligned offsets", SetUpIsParsedUnaligned},
      {65, "registrations need no signal of their own, and end with the channel",
       RegistrationsNeedNoSignal},
      {66, "RDMA reads write what was asked and nothing outside", RdmaWritesWhatWasAsked},
  };
}

}  // namespace vmbfs::conformance
