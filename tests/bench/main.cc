// The guest's half of tools/bench: every subcommand is a guest in this process,
// which reads from a daemon in another, or the load beside one. Samples go to
// stdout (measure.h); exit code 1 and a line on stderr when something fails.

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tests/bench/bench_guest.h"
#include "tests/bench/control_rows.h"
#include "tests/bench/measure.h"
#include "tests/bench/rows.h"

namespace vmbfs::bench {
namespace {

struct Arguments {
  RowOptions row;
  ControlOptions control;
  bool pinned = true;
  std::string row_name;
  std::string side;
  int repeat = 0;
  double seconds = 1;
  double share = 1;   // of a core
  std::string links;  // the folder of link sockets
  std::string prefix;
  int count = 0;
};

constexpr uint64_t kSmallRamBytes = 1 << 20;
constexpr uint64_t kFloodedBytes = 64 << 20;

// Depth-1 reads for a time, each a sample; the guest sleeps for its answers.
absl::Status Probe(const Arguments& arguments) {
  const auto guest =
      BenchGuest::Open(arguments.row.link, hyperv::GuestProfile::kLinux, kSmallRamBytes);
  if (!guest.ok()) return guest.status();
  std::vector<double> samples;
  absl::Status status;
  uint64_t offset = 0;
  const auto start = std::chrono::steady_clock::now();
  while (status.ok() && SecondsSince(start) < arguments.seconds) {
    samples.push_back(Microseconds([&] { status = (*guest)->ReadAsleep(offset); }));
    offset = (offset + kReadBytesMax) % kFloodedBytes;
  }
  Report(arguments.row_name, arguments.side, arguments.repeat, samples);
  return status;
}

// Awake reads with the rings kept full, or one after the other, `count` of them:
// what tools/bench counts system calls of.
absl::Status Count(const Arguments& arguments) {
  const auto guest =
      BenchGuest::Open(arguments.row.link, hyperv::GuestProfile::kLinux, kSmallRamBytes);
  if (!guest.ok()) return guest.status();
  for (std::string line; std::getline(std::cin, line);) {
    absl::Status status;
    const uint64_t reads = static_cast<uint64_t>(arguments.count);
    if (line == "full") {
      status = (*guest)->Stream(0, reads * kReadBytesMax, BenchGuest::Waiting::kSpin);
    } else {
      for (uint64_t i = 0; i < reads && status.ok(); ++i) {
        status = (*guest)->ReadAwake(i * kReadBytesMax);
      }
    }
    if (!status.ok()) return status;
    std::cout << "done" << std::endl;
  }
  return absl::OkStatus();
}

// Keeps its ring full until it is killed.
absl::Status Flood(const Arguments& arguments) {
  const auto guest =
      BenchGuest::Open(arguments.row.link, hyperv::GuestProfile::kLinux, kSmallRamBytes);
  if (!guest.ok()) return guest.status();
  std::cout << "open" << std::endl;
  for (;;) {
    const absl::Status status = (*guest)->Stream(0, kFloodedBytes, BenchGuest::Waiting::kSleep);
    if (!status.ok()) return status;
  }
}

// Burns a share of its core until it is killed, in slices as short as a
// flooder's.
absl::Status Burn(const Arguments& arguments) {
  std::cout << "open" << std::endl;
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    const double used = static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
    if (used > arguments.share * SecondsSince(start)) {
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }
}

// Opens `count` guests of profile firmware and keeps them until stdin ends.
absl::Status Hold(const Arguments& arguments) {
  std::vector<std::unique_ptr<BenchGuest>> guests;
  for (int i = 0; i < arguments.count; ++i) {
    auto guest = BenchGuest::Open(absl::StrCat(arguments.links, "/", arguments.prefix, i, ".sock"),
                                  hyperv::GuestProfile::kFirmware, kSmallRamBytes);
    if (!guest.ok()) return guest.status();
    guests.push_back(*std::move(guest));
  }
  std::cout << "open" << std::endl;
  std::cin.ignore(std::numeric_limits<std::streamsize>::max());
  std::quick_exit(0);  // the daemon is about to end as well
}

void AddCommands(CLI::App& app, Arguments& arguments, std::function<absl::Status()>& work) {
  RowOptions& row = arguments.row;
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--guest-core", row.cores.guest);
  app.add_option("--host-core", row.cores.host);
  app.add_option("--repeats", row.repeats);
  app.add_option("--link", row.link);
  app.add_option("--other-link", row.other_link);
  app.add_option("--file", row.file);
  app.add_option("--row", arguments.row_name);
  app.add_option("--side", arguments.side);
  app.add_option("--repeat", arguments.repeat);
  app.add_option("--seconds", arguments.seconds);
  app.add_option("--share", arguments.share);
  app.add_option("--links", arguments.links);
  app.add_option("--prefix", arguments.prefix);
  app.add_option("--count", arguments.count);
  app.add_option("--server", arguments.control.server);
  app.add_option("--echo", arguments.control.echo);
  app.add_option("--echo-socket", arguments.control.echo_socket);
  app.add_option("--folder", arguments.control.folder);
  const auto add = [&](const std::string& name, std::function<absl::Status()> run) {
    app.add_subcommand(name)->callback([&work, run = std::move(run)] { work = run; });
  };
  add("awake", [&] { return AwakeRow(row); });
  add("asleep", [&] { return AsleepRow(row); });
  add("sequential", [&] { return SequentialRow(row); });
  add("rdma", [&] { return RdmaRows(row); });
  add("scale", [&] { return ScaleRow(row); });
  add("probe", [&] { return Probe(arguments); });
  add("count", [&] { return Count(arguments); });
  add("flood", [&] { return Flood(arguments); });
  add("burn", [&] { return Burn(arguments); });
  add("hold", [&] { return Hold(arguments); });
  // Client and servers of the control plane run where the scheduler puts them.
  const auto add_unpinned = [&](const std::string& name, auto function) {
    app.add_subcommand(name)->callback([&arguments, &work, function] {
      arguments.pinned = false;
      arguments.control.repeats = arguments.row.repeats;
      work = [&arguments, function] { return function(arguments.control); };
    });
  };
  add_unpinned("unary-read", UnaryReadRow);
  add_unpinned("durable-attach", DurableAttachRow);
  add_unpinned("echo", ServeEcho);
}

void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

int Main(int argc, char** argv) {
  CLI::App app{"The guest's half of tools/bench", "bench_guest"};
  Arguments arguments;
  std::function<absl::Status()> work;
  AddCommands(app, arguments, work);
  CLI11_PARSE(app, argc, argv);
  RaiseDescriptorLimit();
  absl::Status status;
  if (arguments.pinned) status = Pin(arguments.row.cores.guest);
  if (status.ok()) status = work();
  if (!status.ok()) std::cerr << "bench: " << status << "\n";
  return status.ok() ? 0 : 1;
}

}  // namespace
}  // namespace vmbfs::bench

int main(int argc, char** argv) { return vmbfs::bench::Main(argc, argv); }
