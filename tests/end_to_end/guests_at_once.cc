// Many guests at once: each line on stdin is "SOCKET PROFILE VMM SHA256". Every
// guest opens its imc channel; when all have, all read imc.hiv a few times and
// compare its digest. Exits 1 and says which guest failed and why.

#include <barrier>
#include <cstddef>
#include <iostream>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "tests/end_to_end/open_guest.h"

namespace {

constexpr int kReadsEach = 5;

struct Order {
  std::string socket_path;
  std::string profile;
  std::string vmm;
  std::string sha256;
};

absl::Status ReadAndCompare(vmbfs::OpenGuest& guest, const std::string& sha256) {
  for (int i = 0; i < kReadsEach; ++i) {
    const absl::StatusOr<std::string> digest = guest.ReadDigest();
    if (!digest.ok()) return digest.status();
    if (*digest != sha256) {
      return absl::DataLossError(absl::StrCat("read ", *digest, ", expected ", sha256));
    }
  }
  return guest.Finish();
}

}  // namespace

int main() {
  std::vector<Order> orders;
  for (std::string line; std::getline(std::cin, line);) {
    Order order;
    std::istringstream(line) >> order.socket_path >> order.profile >> order.vmm >> order.sha256;
    orders.push_back(order);
  }
  std::barrier all_open(static_cast<std::ptrdiff_t>(orders.size()));
  std::mutex mutex;
  size_t opened = 0;
  bool failed = false;
  std::vector<std::thread> threads;
  for (const Order& order : orders) {
    threads.emplace_back([&, order] {
      auto guest = vmbfs::OpenGuest::Start(order.socket_path, order.profile, order.vmm);
      if (guest.ok()) {
        std::lock_guard lock(mutex);
        ++opened;
      }
      all_open.arrive_and_wait();
      const absl::Status status =
          guest.ok() ? ReadAndCompare(*guest, order.sha256) : guest.status();
      if (!status.ok()) {
        std::lock_guard lock(mutex);
        failed = true;
        std::cerr << order.socket_path << ": " << status << "\n";
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::cout << opened << " guests had their channels open at once\n";
  return failed ? 1 : 0;
}
