// The data plane of one VM, and nothing else in the process: `one_vm_server
// SOCKET` serves a link with the two devices a VM can have, until it is killed.
// Says "ready" when a VMM may connect, and at each SIGUSR1, after the allocator
// has given back what nobody holds.

#include <malloc.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "core/backing/memory_file.h"
#include "core/backing/single_file_backing.h"
#include "core/vmbfs/vmbfs_device.h"
#include "hyperv/link/link_server.h"

namespace {

// Files in memory are never waited for.
class NoBlockingRunner final : public vmbfs::BlockingRunner {
 public:
  void Run(std::function<void()>, std::function<void()>) override { std::abort(); }
};

void SayReady() {
  malloc_trim(0);
  std::cout << "ready" << std::endl;
}

void SayReadyAtEach(boost::asio::signal_set& signals) {
  signals.async_wait([&signals](const boost::system::error_code& error, int) {
    if (error) return;
    SayReady();
    SayReadyAtEach(signals);
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: one_vm_server SOCKET\n";
    return 2;
  }
  boost::asio::io_context context(1);
  boost::asio::signal_set signals(context);
  boost::system::error_code error;
  signals.add(SIGUSR1, error);
  if (error) return 1;
  SayReadyAtEach(signals);
  NoBlockingRunner runner;
  vmbfs::hyperv::LinkServer server(context.get_executor());
  vmbfs::hyperv::LinkOptions options;
  options.socket_path = argv[1];
  absl::Status status = server.Listen(options);
  for (const vmbfs::hyperv::Guid& instance : {vmbfs::kImcInstanceId, vmbfs::kBootInstanceId}) {
    const auto file = std::make_shared<vmbfs::MemoryFile>(std::vector<std::byte>(65'536));
    const auto backing =
        std::make_shared<vmbfs::SingleFileBacking>(u"imc.hiv", file, "65,536 bytes of zeros");
    if (status.ok()) {
      status = server.Add(std::make_shared<vmbfs::VmbfsDevice>(instance, backing, runner));
    }
  }
  if (!status.ok()) {
    std::cerr << status << '\n';
    return 1;
  }
  server.Start();
  SayReady();
  context.run();
}
