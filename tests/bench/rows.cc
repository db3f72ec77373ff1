#include "tests/bench/rows.h"

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/bench/bare_stream.h"
#include "tests/bench/bench_guest.h"
#include "tests/bench/cached_file.h"
#include "tests/bench/limits.h"
#include "tests/bench/turns.h"

namespace vmbfs::bench {

namespace {

using hyperv::GuestProfile;

constexpr uint64_t kRamBytes = 32 << 20;
// Awake reads come in bursts: all of their time together stays below the share
// of a core that the daemon may spend on looking in vain (20 %).
constexpr double kBurstSeconds = 0.008;
constexpr auto kBetweenBursts = std::chrono::milliseconds(45);
constexpr int kBurstsPerRepeat = 10;
constexpr int kWakingReads = 16;  // not timed
// Longer than a side spins before it sleeps.
constexpr auto kUntilAsleep = std::chrono::milliseconds(1);
constexpr int kAsleepReadsPerRepeat = 300;
constexpr int kPassesPerRepeat = 2;
constexpr size_t kRingBytes = 64 << 10;
constexpr double kMiB = 1 << 20;

// Walks through a file block by block, and begins again at its end.
class Cursor {
 public:
  Cursor(uint64_t file_bytes, uint64_t block_bytes, uint64_t begin = 0)
      : last_(file_bytes - block_bytes), block_bytes_(block_bytes), next_(begin) {}
  uint64_t Next() {
    if (next_ > last_) next_ = 0;
    return std::exchange(next_, next_ + block_bytes_);
  }

 private:
  const uint64_t last_;
  const uint64_t block_bytes_;
  uint64_t next_;
};

using Operation = std::function<absl::Status()>;

// Operations one after the other for a burst's time, timed one by one.
absl::Status Burst(const Operation& operation, std::vector<double>& samples) {
  absl::Status status;
  for (int i = 0; i < kWakingReads; ++i) status.Update(operation());
  const auto start = std::chrono::steady_clock::now();
  while (status.ok() && SecondsSince(start) < kBurstSeconds) {
    samples.push_back(Microseconds([&] { status.Update(operation()); }));
  }
  return status;
}

Side BurstSide(std::string_view name, Operation operation) {
  return {name, [operation = std::move(operation)](std::vector<double>& samples) {
            return Burst(operation, samples);
          }};
}

Side BareSide(std::string_view name, BareExchange& exchange, Operation operation) {
  return {name, [&exchange, operation = std::move(operation)](std::vector<double>& samples) {
            exchange.Begin();
            absl::Status status = Burst(operation, samples);
            exchange.End();
            return status;
          }};
}

// A side of one operation that moves `bytes`; the sample is MiB per second.
Side ThroughputSide(std::string_view name, uint64_t bytes, Operation operation) {
  return {name, [bytes, operation = std::move(operation)](std::vector<double>& samples) {
            absl::Status status;
            const double us = Microseconds([&] { status = operation(); });
            samples.push_back(static_cast<double>(bytes) / kMiB / (us / 1e6));
            return status;
          }};
}

absl::Status ReadOrError(bool read) {
  return read ? absl::OkStatus() : absl::DataLossError("the file is not in the page cache");
}

absl::Status RdmaRow(std::string_view row, uint32_t bytes, int turns, const RowOptions& options,
                     BenchGuest& guest, const CachedFile& file) {
  const auto pages = guest.RdmaPages();
  if (!pages.ok()) return pages.status();
  std::byte* target = (*pages)->Page(0).data();  // side by side: profile firmware
  Cursor value(file.size_bytes(), bytes);
  Cursor limit(file.size_bytes(), bytes, file.size_bytes() / 2);
  const auto read = [&] { return guest.ReadRdmaAwake(value.Next(), bytes); };
  const auto copy = [&] {
    std::memcpy(target, file.bytes().data() + limit.Next(), bytes);
    return absl::OkStatus();
  };
  Side reads = ThroughputSide("value", bytes, read);
  // The first read of a burst wakes the data plane, and is not timed.
  Side awake{"value", [&](std::vector<double>& samples) {
               absl::Status status = read();
               for (int i = 0; i < 4; ++i) status.Update(reads.sample(samples));
               return status;
             }};
  Side copies = ThroughputSide("limit", bytes, copy);
  Side same{"limit", [&](std::vector<double>& samples) {
              absl::Status status = copy();
              for (int i = 0; i < 4; ++i) status.Update(copies.sample(samples));
              return status;
            }};
  return Interleave(row, options.repeats, turns, std::chrono::milliseconds(10), {same, awake});
}

}  // namespace

absl::Status AwakeRow(const RowOptions& options) {
  const absl::StatusOr<CachedFile> file = CachedFile::Open(options.file);
  if (!file.ok()) return file.status();
  const auto guest = BenchGuest::Open(options.link, GuestProfile::kLinux, kRamBytes);
  if (!guest.ok()) return guest.status();
  BareExchange bare(&*file, kReadBytesMax, options.cores);
  BareExchange ping_pong(nullptr, 0, options.cores);
  std::vector<std::byte> block(kReadBytesMax);
  Cursor value(file->size_bytes(), kReadBytesMax);
  Cursor limit(file->size_bytes(), kReadBytesMax, file->size_bytes() / 2);
  Cursor plain(file->size_bytes(), kReadBytesMax, file->size_bytes() / 4);
  return Interleave(
      "read_12k_awake", options.repeats, kBurstsPerRepeat, kBetweenBursts,
      {BareSide("limit", bare,
                [&] { return ReadOrError(bare.Exchange(limit.Next(), block.data())); }),
       BurstSide("value", [&] { return (*guest)->ReadAwake(value.Next()); }),
       BareSide("ping_pong", ping_pong,
                [&] { return ReadOrError(ping_pong.Exchange(0, nullptr)); }),
       BurstSide("pread", [&] { return ReadOrError(file->ReadCached(plain.Next(), block)); })});
}

absl::Status AsleepRow(const RowOptions& options) {
  const absl::StatusOr<CachedFile> file = CachedFile::Open(options.file);
  if (!file.ok()) return file.status();
  const auto guest = BenchGuest::Open(options.link, GuestProfile::kFirmware, kRamBytes);
  if (!guest.ok()) return guest.status();
  const auto events = EventPingPong::Start(options.cores);
  if (!events.ok()) return events.status();
  Cursor value(file->size_bytes(), kReadBytesMax);
  const auto timed = [](const Operation& operation, std::vector<double>& samples) {
    absl::Status status;
    samples.push_back(Microseconds([&] { status = operation(); }));
    return status;
  };
  return Interleave("read_12k_asleep", options.repeats, kAsleepReadsPerRepeat, kUntilAsleep,
                    {{"limit",
                      [&](std::vector<double>& samples) {
                        return timed([&] { return (*events)->Exchange(); }, samples);
                      }},
                     {"value", [&](std::vector<double>& samples) {
                        return timed([&] { return (*guest)->ReadAsleep(value.Next()); }, samples);
                      }}});
}

absl::Status SequentialRow(const RowOptions& options) {
  const absl::StatusOr<CachedFile> file = CachedFile::Open(options.file);
  if (!file.ok()) return file.status();
  const auto guest = BenchGuest::Open(options.link, GuestProfile::kLinux, kRamBytes);
  if (!guest.ok()) return guest.status();
  const uint64_t bytes = file->size_bytes() / kReadBytesMax * kReadBytesMax;
  std::vector<std::byte> area(kRingBytes);
  BareStream stream(*file, kReadBytesMax, kRingBytes, options.cores);
  // Block by block through the file, into an area as large as the ring.
  const auto through = [&](auto&& block) {
    size_t at = 0;
    for (uint64_t offset = 0; offset < bytes; offset += kReadBytesMax) {
      if (at + kReadBytesMax > area.size()) at = 0;
      if (!block(offset, std::span(area).subspan(at, kReadBytesMax))) return false;
      at += kReadBytesMax;
    }
    return true;
  };
  return Interleave(
      "ring_sequential", options.repeats, kPassesPerRepeat, std::chrono::milliseconds(20),
      {ThroughputSide("limit", bytes,
                      [&] {
                        return ReadOrError(through([&](uint64_t offset, std::span<std::byte> out) {
                          return file->ReadCached(offset, out);
                        }));
                      }),
       ThroughputSide("value", bytes,
                      [&] { return (*guest)->Stream(0, bytes, BenchGuest::Waiting::kSpin); }),
       ThroughputSide("bare_stream", bytes,
                      [&] { return ReadOrError(stream.Pass(bytes / kReadBytesMax)); }),
       ThroughputSide("memcpy", bytes, [&] {
         return ReadOrError(through([&](uint64_t offset, std::span<std::byte> out) {
           std::memcpy(out.data(), file->bytes().data() + offset, out.size());
           return true;
         }));
       })});
}

absl::Status RdmaRows(const RowOptions& options) {
  const absl::StatusOr<CachedFile> file = CachedFile::Open(options.file);
  if (!file.ok()) return file.status();
  const auto guest = BenchGuest::Open(options.link, GuestProfile::kFirmware, kRamBytes);
  if (!guest.ok()) return guest.status();
  absl::Status status = RdmaRow("rdma_1m", 1 << 20, 16, options, **guest, *file);
  status.Update(RdmaRow("rdma_7m", 7 << 20, 8, options, **guest, *file));
  return status;
}

absl::Status ScaleRow(const RowOptions& options) {
  const absl::StatusOr<CachedFile> file = CachedFile::Open(options.file);
  if (!file.ok()) return file.status();
  const auto many = BenchGuest::Open(options.link, GuestProfile::kLinux, kRamBytes);
  if (!many.ok()) return many.status();
  const auto one = BenchGuest::Open(options.other_link, GuestProfile::kLinux, kRamBytes);
  if (!one.ok()) return one.status();
  Cursor value(file->size_bytes(), kReadBytesMax);
  Cursor limit(file->size_bytes(), kReadBytesMax, file->size_bytes() / 2);
  return Interleave("scale_1000", options.repeats, kBurstsPerRepeat, kBetweenBursts,
                    {BurstSide("limit", [&] { return (*one)->ReadAwake(limit.Next()); }),
                     BurstSide("value", [&] { return (*many)->ReadAwake(value.Next()); })});
}

}  // namespace vmbfs::bench
