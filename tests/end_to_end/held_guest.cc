// One guest that stays: `held_guest SOCKET PROFILE` opens the imc channel, says
// "open", and then does what each line on stdin says: `read` (prints the
// SHA-256 of imc.hiv, or the error), `reopen` (says "open"). The end of stdin
// closes the channel and unloads.

#include <iostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/end_to_end/open_guest.h"

namespace {

void Say(const std::string& line) { std::cout << line << std::endl; }

std::string Obey(vmbfs::OpenGuest& guest, const std::string& command) {
  if (command == "read") {
    const absl::StatusOr<std::string> digest = guest.ReadDigest();
    return digest.ok() ? *digest : digest.status().ToString();
  }
  if (command == "reopen") {
    const absl::Status status = guest.Reopen();
    return status.ok() ? "open" : status.ToString();
  }
  return "unknown command: " + command;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: held_guest SOCKET PROFILE\n";
    return 2;
  }
  auto guest = vmbfs::OpenGuest::Start(argv[1], argv[2]);
  Say(guest.ok() ? "open" : guest.status().ToString());
  if (!guest.ok()) return 1;
  for (std::string command; std::getline(std::cin, command);) Say(Obey(*guest, command));
  const absl::Status status = guest->Finish();
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
