#include "tests/limits/server_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace vmbfs {
namespace {

// Short, since a socket's path is.
std::string SocketIn(const std::string& folder) { return folder + "/vm.sock"; }

// Whether the program said its one line.
bool SaysReady(int fd) {
  std::string line;
  char character = 0;
  while (line.size() < 16 && read(fd, &character, 1) == 1 && character != '\n') line += character;
  return line == "ready";
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(const std::string& program) {
  std::string folder = "/tmp/limits-test-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return absl::ErrnoToStatus(errno, "mkdtemp");
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return absl::ErrnoToStatus(errno, "pipe2");
  hyperv::UniqueFd output(ends[0]);
  hyperv::UniqueFd input(ends[1]);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input.get(), STDOUT_FILENO);
  std::string name = program;
  std::string socket_path = SocketIn(folder);
  std::array<char*, 3> arguments = {name.data(), socket_path.data(), nullptr};
  pid_t pid = 0;
  const int error =
      posix_spawn(&pid, program.c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return absl::ErrnoToStatus(error, program);
  std::unique_ptr<ServerProcess> process(new ServerProcess(folder, pid, std::move(output)));
  input.reset();  // so that its end is seen
  if (!SaysReady(process->output_.get())) return absl::UnavailableError(program + " did not start");
  return process;
}

ServerProcess::ServerProcess(std::string folder, pid_t pid, hyperv::UniqueFd output)
    : folder_(std::move(folder)),
      socket_path_(SocketIn(folder_)),
      pid_(pid),
      output_(std::move(output)) {}

ServerProcess::~ServerProcess() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

absl::StatusOr<ServerProcess::Holdings> ServerProcess::Look() const {
  kill(pid_, SIGUSR1);
  if (!SaysReady(output_.get())) return absl::UnavailableError("the server is gone");
  const absl::StatusOr<size_t> private_bytes = PrivateBytes();
  if (!private_bytes.ok()) return private_bytes.status();
  const absl::StatusOr<size_t> descriptors = Descriptors();
  if (!descriptors.ok()) return descriptors.status();
  return Holdings{.private_bytes = *private_bytes, .descriptors = *descriptors};
}

absl::StatusOr<size_t> ServerProcess::PrivateBytes() const {
  std::ifstream file(absl::StrCat("/proc/", pid_, "/smaps_rollup"));
  size_t kilobytes = 0;
  size_t fields = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    size_t value = 0;
    words >> name >> value;
    if (name != "Private_Clean:" && name != "Private_Dirty:") continue;
    kilobytes += value;
    ++fields;
  }
  if (fields != 2) return absl::UnavailableError("the server's memory cannot be read: is it gone?");
  return kilobytes * 1024;
}

absl::StatusOr<size_t> ServerProcess::Descriptors() const {
  std::error_code error;
  const std::filesystem::directory_iterator folder(absl::StrCat("/proc/", pid_, "/fd"), error);
  if (error) return absl::UnavailableError(error.message());
  return static_cast<size_t>(std::distance(begin(folder), end(folder)));
}

}  // namespace vmbfs
