// The person at the machine's serial console: stdin and stdout.

#pragma once

#include <termios.h>

#include <optional>
#include <string>

#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs::test_vmm {

// A terminal at stdin is in raw mode while one lives; Ctrl-A x leaves there.
// SIGINT, SIGTERM and SIGHUP of the process leave as well.
//
// Thread safety: the main thread, which must make it before any other thread.
class Console {
 public:
  Console();
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // -1 when nothing more can come.
  int input_fd() const { return input_fd_; }
  int signal_fd() const { return signals_.get(); }

  // What was typed; call it when input_fd is readable.
  std::string Read();
  // Somebody wants to leave.
  bool leaving();

  static void Write(char byte);

 private:
  int input_fd_ = 0;
  std::optional<termios> saved_;  // stdin is a terminal, and this was its state
  hyperv::UniqueFd signals_;
  bool escaped_ = false;  // Ctrl-A came last
  bool leaving_ = false;
};

}  // namespace vmbfs::test_vmm
