#include "tests/conformance/imc_client.h"

namespace vmbfs::conformance {
namespace {

constexpr size_t kInfoResponseBytes = 24;
constexpr size_t kVersionResponseBytes = 12;
constexpr size_t kReadResponseBytes = 12;

Offer ConnectAndFindImc(RawGuest& guest, const ContactFields& contact) {
  guest.Connect(contact);
  return guest.Imc();
}

}  // namespace

ReadyImc::ReadyImc(const KitOptions& options, Verdict& verdict, const ChannelShape& shape,
                   const ContactFields& contact)
    : guest(options, verdict), channel(guest, ConnectAndFindImc(guest, contact), shape) {
  channel.Create();
  channel.Open();
  AgreeOnVersion(guest, channel);
}

// Torndown tells that the host is done with the rings: before, it may still
// write the `out` of a request whose answer was here already.
void ReadyImc::OpenAnew() {
  channel.Close();
  channel.TearDown();
  channel.InitialiseRings();
  channel.Create();
  channel.Open();
}

void ReadyImc::Reopen() {
  OpenAnew();
  AgreeOnVersion(guest, channel);
}

void ReadyImc::ExpectServed() { conformance::ExpectServed(guest, channel); }

void ReadyImc::ExpectStopped(absl::string_view after) {
  channel.Put(PipeMessage(kPipeData, InfoRequest(kHive)));
  channel.Publish();
  guest.verdict().Expect(channel.IsStopped(Milliseconds(60)), "an answer after ", after);
  Reopen();
  ExpectServed();
}

void AgreeOnVersion(RawGuest& guest, RawChannel& channel) {
  const Bytes answer = channel.Exchange(VersionRequest());
  guest.verdict().Expect(
      answer.size() == kVersionResponseBytes && Get32(answer, 0) == 2 && Get32(answer, 8) == 0,
      "version response: ", ToHex(answer));
}

void ExpectServed(RawGuest& guest, RawChannel& channel) {
  const FileInfo info = GetInfo(guest, channel);
  guest.verdict().Expect(info.status == kSuccess && !info.directory, "imc.hiv: status ",
                         info.status);
}

FileInfo GetInfo(RawGuest& guest, RawChannel& channel, std::u16string_view path) {
  const Bytes answer = channel.Exchange(InfoRequest(path));
  const uint32_t flags = Get32(answer, 12);
  const FileInfo info{.status = Get32(answer, 8),
                      .directory = (flags & 1) != 0,
                      .rdma = (flags & 2) != 0,
                      .bytes = Get(answer, 16, 8)};
  guest.verdict().Expect(answer.size() == kInfoResponseBytes && Get32(answer, 0) == 4,
                         "file info response: ", ToHex(answer));
  guest.verdict().Expect(info.status == kSuccess || (flags == 0 && info.bytes == 0),
                         "a failed file info response has flags ", flags, " and size ", info.bytes);
  return info;
}

ReadResult ParseReadResponse(Verdict& verdict, ByteView response, uint32_t asked_bytes) {
  ReadResult result{.status = Get32(response, 8)};
  const bool well_formed = response.size() >= kReadResponseBytes && Get32(response, 0) == 6;
  if (!verdict.Expect(well_formed, "read response: ", ToHex(response))) return result;
  const ByteView data = response.subspan(kReadResponseBytes);
  result.data.assign(data.begin(), data.end());
  verdict.Expect(data.size() <= asked_bytes, "read of ", asked_bytes, " bytes got ", data.size());
  verdict.Expect(result.status != kSuccess || !data.empty() || asked_bytes == 0, "read of ",
                 asked_bytes, " bytes got status 0 and no data");
  verdict.Expect(result.status == kSuccess || data.empty(), "a failed read has ", data.size(),
                 " bytes of data");
  return result;
}

ReadResult ReadFile(RawGuest& guest, RawChannel& channel, uint32_t count, uint64_t offset,
                    std::u16string_view path) {
  return ParseReadResponse(guest.verdict(), channel.Exchange(ReadRequest(count, offset, path)),
                           count);
}

}  // namespace vmbfs::conformance
