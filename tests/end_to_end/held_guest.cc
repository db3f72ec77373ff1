// One guest that stays: `held_guest SOCKET PROFILE VMM` opens the imc channel,
// says "open", and then does what each line on stdin says: `read` (prints the
// SHA-256 of imc.hiv, or the error), `boot NAME` (the same of a file of the boot
// device, whose channel stays open beside), `reopen` (says "open"). The end of
// stdin closes the channels and unloads.

#include <iostream>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/end_to_end/open_guest.h"

namespace {

void Say(const std::string& line) { std::cout << line << std::endl; }

std::string DigestOrError(const absl::StatusOr<std::string>& digest) {
  return digest.ok() ? *digest : digest.status().ToString();
}

std::string Obey(vmbfs::OpenGuest& guest, const std::string& command) {
  constexpr std::string_view kBoot = "boot ";
  if (command == "read") return DigestOrError(guest.ReadDigest());
  if (command.starts_with(kBoot)) {
    return DigestOrError(guest.ReadBootDigest(command.substr(kBoot.size())));
  }
  if (command == "reopen") {
    const absl::Status status = guest.Reopen();
    return status.ok() ? "open" : status.ToString();
  }
  return "unknown command: " + command;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: held_guest SOCKET PROFILE VMM\n";
    return 2;
  }
  auto guest = vmbfs::OpenGuest::Start(argv[1], argv[2], argv[3]);
  Say(guest.ok() ? "open" : guest.status().ToString());
  if (!guest.ok()) return 1;
  for (std::string command; std::getline(std::cin, command);) Say(Obey(*guest, command));
  const absl::Status status = guest->Finish();
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
