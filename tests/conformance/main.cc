// vmbfs-sanity: the conformance checklist of VMBus and vmbfs, against any server
// behind the link.

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/conformance/host_control.h"
#include "tests/conformance/statement.h"

namespace vmbfs::conformance {
namespace {

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kUsage = 2;

struct Arguments {
  std::string link;
  std::string control;
  std::string vm;
  std::string only;
  double timeout_seconds = 5;
  bool list = false;
  bool verbose = false;
};

// "N[,N-M]" as pairs of the first and the last number; nullopt if it is no such.
std::optional<std::vector<std::pair<int, int>>> ParseRanges(const std::string& text) {
  std::vector<std::pair<int, int>> ranges;
  for (const absl::string_view each : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> ends = absl::StrSplit(each, absl::MaxSplits('-', 1));
    std::pair<int, int> range;
    if (!absl::SimpleAtoi(ends.first, &range.first)) return std::nullopt;
    range.second = range.first;
    if (!ends.second.empty() && !absl::SimpleAtoi(ends.second, &range.second)) return std::nullopt;
    ranges.push_back(range);
  }
  return ranges;
}

std::vector<Statement> Choose(const std::vector<std::pair<int, int>>& ranges) {
  std::vector<Statement> chosen = AllStatements();
  if (ranges.empty()) return chosen;
  std::erase_if(chosen, [&](const Statement& each) {
    for (const auto& [first, last] : ranges) {
      if (each.number >= first && each.number <= last) return false;
    }
    return true;
  });
  return chosen;
}

const char* Word(Verdict::Result result) {
  switch (result) {
    case Verdict::Result::kPass:
      return "PASS";
    case Verdict::Result::kFail:
      return "FAIL";
    case Verdict::Result::kSkip:
      break;
  }
  return "SKIP";
}

// What a server wrote is not trusted on a terminal either.
std::string Printable(std::string text) {
  for (char& each : text) {
    if (each < ' ' || each > '~') each = '?';
  }
  return text;
}

void Print(const Statement& statement, const Verdict& verdict, Milliseconds took, bool verbose) {
  std::cout << Word(verdict.result()) << " " << statement.number << " " << statement.text;
  if (!verdict.open()) std::cout << ": " << Printable(verdict.reason());
  std::cout << "\n";
  if (verbose) {
    for (const std::string& note : verdict.notes()) std::cout << "     " << note << "\n";
    std::cout << "     " << took.count() << " ms\n";
  }
  std::cout << std::flush;
}

int RunAll(const std::vector<Statement>& statements, const Bench& bench, bool verbose) {
  int counts[3] = {};
  for (const Statement& statement : statements) {
    Verdict verdict;
    const auto start = std::chrono::steady_clock::now();
    statement.run(bench, verdict);
    const auto took = std::chrono::steady_clock::now() - start;
    Print(statement, verdict, std::chrono::duration_cast<Milliseconds>(took), verbose);
    ++counts[static_cast<size_t>(verdict.result())];
  }
  std::cout << counts[0] << " passed, " << counts[1] << " failed, " << counts[2] << " skipped"
            << std::endl;
  return counts[1] == 0 ? kDone : kFailed;
}

void AddOptions(CLI::App& app, Arguments& arguments) {
  app.footer(
      "Prints PASS, FAIL or SKIP for each statement and a last line with the counts.\n"
      "The server must offer the IMC device with a file imc.hiv; with one of 8 KiB or more,\n"
      "and a boot device, everything is tested. No other VMM may use the link meanwhile.\n"
      "Exit codes: 0 nothing failed, 1 a statement failed, 2 usage.");
  app.add_option("--link", arguments.link, "The link socket of the VM")->type_name("SOCKET");
  app.add_option("--control", arguments.control,
                 "vmbfsd's control plane, for statements in which the host must act")
      ->type_name("ADDR");
  app.add_option("--vm", arguments.vm, "The VM's name there")->type_name("NAME");
  app.add_option("--only", arguments.only, "Only these statements")->type_name("N[,N-M]");
  app.add_option("--timeout", arguments.timeout_seconds,
                 "How long one answer may take, in seconds (default 5)")
      ->check(CLI::Range(0.1, 600.0).description(""))
      ->type_name("S");
  app.add_flag("--list", arguments.list, "Prints the statements and ends");
  app.add_flag("--verbose", arguments.verbose, "Adds notes and times");
}

int Usage(const std::string& text) {
  std::cerr << "vmbfs-sanity: " << text << "\n";
  return kUsage;
}

int Run(const Arguments& arguments) {
  const auto ranges = ParseRanges(arguments.only);
  if (!ranges) return Usage("--only wants numbers and ranges, as in 9,28-37");
  const std::vector<Statement> statements = Choose(*ranges);
  if (statements.empty()) return Usage("--only names no statement");
  if (arguments.list) {
    for (const Statement& each : statements) std::cout << each.number << " " << each.text << "\n";
    return kDone;
  }
  if (arguments.link.empty()) return Usage("--link is required");
  if (arguments.control.empty() != arguments.vm.empty()) {
    return Usage("--control and --vm go together");
  }
  Bench bench;
  bench.options.socket_path = arguments.link;
  bench.options.timeout = Milliseconds(static_cast<int64_t>(1000 * arguments.timeout_seconds));
  std::unique_ptr<HostControl> control;
  if (!arguments.control.empty()) {
    auto connected = HostControl::Connect(arguments.control, arguments.vm, bench.options.timeout);
    if (!connected.ok()) {
      std::cerr << "vmbfs-sanity: " << connected.status().message() << "\n";
      return kFailed;
    }
    control = *std::move(connected);
    bench.control = control.get();
  }
  return RunAll(statements, bench, arguments.verbose);
}

int Main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App app{"Checks a VMBus and vmbfs server against the numbered statements of its checklist.",
               "vmbfs-sanity"};
  Arguments arguments;
  AddOptions(app, arguments);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, std::cout, std::cerr) == 0 ? kDone : kUsage;
  }
  return Run(arguments);
}

}  // namespace
}  // namespace vmbfs::conformance

int main(int argc, char** argv) { return vmbfs::conformance::Main(argc, argv); }
