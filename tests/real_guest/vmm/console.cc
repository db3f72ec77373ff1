#include "tests/real_guest/vmm/console.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <string_view>

namespace vmbfs::test_vmm {
namespace {

constexpr char kEscape = 'A' - '@';  // Ctrl-A
constexpr char kLeave = 'x';

}  // namespace

Console::Console() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signals_ = hyperv::UniqueFd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));

  termios state;
  if (tcgetattr(STDIN_FILENO, &state) != 0) return;
  saved_ = state;
  cfmakeraw(&state);
  tcsetattr(STDIN_FILENO, TCSANOW, &state);
}

Console::~Console() {
  if (saved_) tcsetattr(STDIN_FILENO, TCSANOW, &*saved_);
}

std::string Console::Read() {
  std::array<char, 256> buffer;
  const ssize_t count = read(STDIN_FILENO, buffer.data(), buffer.size());
  if (count <= 0) {
    input_fd_ = -1;
    return {};
  }
  std::string typed;
  for (const char byte : std::string_view(buffer.data(), static_cast<size_t>(count))) {
    // Ctrl-A twice is one for the guest.
    if (saved_ && !escaped_ && byte == kEscape) {
      escaped_ = true;
      continue;
    }
    if (escaped_ && byte == kLeave) leaving_ = true;
    escaped_ = false;
    typed.push_back(byte);
  }
  return typed;
}

bool Console::leaving() {
  signalfd_siginfo signal;
  return leaving_ || read(signals_.get(), &signal, sizeof(signal)) == sizeof(signal);
}

void Console::Write(char byte) {
  [[maybe_unused]] const ssize_t written = write(STDOUT_FILENO, &byte, 1);
}

}  // namespace vmbfs::test_vmm
