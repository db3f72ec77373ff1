// one_vm_server as a process of its own, and what it holds.

#pragma once

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "hyperv/file_descriptor/unique_fd.h"

namespace vmbfs {

// Thread safety: one thread.
class ServerProcess {
 public:
  // Starts the program and waits until it serves.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(const std::string& program);
  // Kills it.
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  const std::string& socket_path() const { return socket_path_; }

  struct Holdings {
    // Resident memory that no other process maps: guest RAM does not count where
    // its VMM has touched it too.
    size_t private_bytes = 0;
    size_t descriptors = 0;
  };
  // What it holds when it has done all that it was asked for before, without
  // what its allocator merely keeps for later.
  absl::StatusOr<Holdings> Look() const;

 private:
  ServerProcess(std::string folder, pid_t pid, hyperv::UniqueFd output);

  absl::StatusOr<size_t> PrivateBytes() const;
  absl::StatusOr<size_t> Descriptors() const;

  const std::string folder_;
  const std::string socket_path_;
  const pid_t pid_;
  const hyperv::UniqueFd output_;
};

}  // namespace vmbfs
