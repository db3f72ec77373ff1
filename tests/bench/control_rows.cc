#include "tests/bench/control_rows.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <iostream>
#include <limits>
#include <memory>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "grpc/client/client.h"
#include "tests/bench/bare_commits.h"
#include "tests/bench/bare_echo.h"
#include "tests/bench/measure.h"
#include "tests/bench/turns.h"

namespace vmbfs::bench {
namespace {

using Call = std::function<absl::Status()>;

constexpr std::chrono::milliseconds kCallTimeout{30'000};
constexpr std::chrono::milliseconds kBetweenTurns{5};
constexpr double kReadSeconds = 0.05;
constexpr double kCommitSeconds = 0.1;
constexpr int kReadTurns = 15;
constexpr int kCommitTurns = 10;
constexpr size_t kManyCallers = 16;
// Not timed: SQLite's log has its full size (1,000 pages) after them. Until then
// each commit makes it longer, which costs the file system more than the commit.
constexpr int kFillingCommits = 1'100;
constexpr char kVm[] = "vms/reader";

// Every caller makes its calls one after the other, all at the same time; the
// sample is the calls of all in a second.
Side RateSide(std::string_view name, double seconds, std::vector<Call> callers) {
  return {name, [seconds, callers = std::move(callers)](std::vector<double>& samples) {
            std::atomic<int> calls = 0;
            std::vector<absl::Status> results(callers.size());
            const auto start = std::chrono::steady_clock::now();
            const auto run = [&](size_t caller) {
              while (results[caller].ok() && SecondsSince(start) < seconds) {
                results[caller] = callers[caller]();
                ++calls;
              }
            };
            std::vector<std::thread> others;
            for (size_t i = 1; i < callers.size(); ++i) others.emplace_back(run, i);
            run(0);
            for (std::thread& other : others) other.join();
            samples.push_back(calls / SecondsSince(start));
            absl::Status status;
            for (const absl::Status& result : results) status.Update(result);
            return status;
          }};
}

v1::GetVmRequest GetRequest() {
  v1::GetVmRequest request;
  request.set_name(kVm);
  return request;
}

// Attaches the content to a VM and detaches it, call by call.
Call Attacher(rpc::Client& client, const std::string& vm, const v1::Attachment& content) {
  v1::CreateAttachmentRequest attach;
  attach.set_parent(vm);
  attach.set_attachment_id("boot");
  *attach.mutable_attachment()->mutable_file() = content.file();
  v1::DeleteAttachmentRequest detach;
  detach.set_name(absl::StrCat(vm, "/attachments/boot"));
  return [&client, attach, detach, attached = false]() mutable {
    attached = !attached;
    return attached ? client.CreateAttachment(attach).status() : client.DeleteAttachment(detach);
  };
}

// Makes a VM for each caller. The first attachment of `reader` is the content.
absl::StatusOr<std::vector<Call>> MakeAttachers(rpc::Client& client) {
  const absl::StatusOr<v1::Vm> vm = client.GetVm(GetRequest());
  if (!vm.ok()) return vm.status();
  if (vm->attachments().empty()) return absl::FailedPreconditionError("reader has no device");
  std::vector<Call> attachers;
  for (size_t i = 0; i < kManyCallers; ++i) {
    v1::CreateVmRequest create;
    create.set_vm_id(absl::StrCat("caller", i));
    const absl::StatusOr<v1::Vm> made = client.CreateVm(create);
    if (!made.ok()) return made.status();
    attachers.push_back(Attacher(client, made->name(), vm->attachments(0)));
  }
  return attachers;
}

}  // namespace

absl::Status UnaryReadRow(const ControlOptions& options) {
  const auto daemon = rpc::Client::Make(options.server, kCallTimeout);
  if (!daemon.ok()) return daemon.status();
  const auto echo = rpc::Client::Make(options.echo, kCallTimeout);
  if (!echo.ok()) return echo.status();
  const v1::GetVmRequest request = GetRequest();
  const auto get_from = [&request](rpc::Client& client) -> std::vector<Call> {
    return {[&] { return client.GetVm(request).status(); }};
  };
  return Interleave("unary_read", options.repeats, kReadTurns, kBetweenTurns,
                    {RateSide("limit", kReadSeconds, get_from(**echo)),
                     RateSide("value", kReadSeconds, get_from(**daemon))});
}

absl::Status DurableAttachRow(const ControlOptions& options) {
  const auto daemon = rpc::Client::Make(options.server, kCallTimeout);
  if (!daemon.ok()) return daemon.status();
  const auto attachers = MakeAttachers(**daemon);
  if (!attachers.ok()) return attachers.status();
  const auto bare = BareCommits::Make(absl::StrCat(options.folder, "/bare.db"));
  if (!bare.ok()) return bare.status();
  // The first caller's state is shared by both sides: its calls alternate in either.
  const auto first = [&attachers] { return attachers->front()(); };
  std::vector<Call> many(attachers->begin() + 1, attachers->end());
  many.push_back(first);
  absl::Status filled;
  for (int i = 0; i < kFillingCommits && filled.ok(); ++i) {
    filled = (*bare)->Commit();
    filled.Update(first());
  }
  if (!filled.ok()) return filled;
  return Interleave("durable_attach", options.repeats, kCommitTurns, kBetweenTurns,
                    {RateSide("limit", kCommitSeconds, {[&] { return (*bare)->Commit(); }}),
                     RateSide("value", kCommitSeconds, {first}),
                     RateSide("callers_16", kCommitSeconds, std::move(many))});
}

absl::Status ServeEcho(const ControlOptions& options) {
  const auto daemon = rpc::Client::Make(options.server, kCallTimeout);
  if (!daemon.ok()) return daemon.status();
  const absl::StatusOr<v1::Vm> answer = (*daemon)->GetVm(GetRequest());
  if (!answer.ok()) return answer.status();
  const auto echo = BareEcho::Start(options.echo_socket, *answer);
  if (!echo.ok()) return echo.status();
  std::cout << "open" << std::endl;
  std::cin.ignore(std::numeric_limits<std::streamsize>::max());
  return absl::OkStatus();
}

}  // namespace vmbfs::bench
