// What a vmbfs device says of itself.

#pragma once

#include <cstdint>
#include <string>

namespace vmbfs {

// Counters are over the device's life.
// Thread safety: a value.
struct VmbfsDeviceStatus {
  bool open = false;
  bool ready = false;  // a version was agreed since the open
  std::string wanted;  // Describe() of what the next open gets
  std::string active;  // of what the open channel reads; empty when not open
  uint64_t opens = 0;
  uint64_t version_requests = 0;
  uint64_t info_requests = 0;
  uint64_t read_requests = 0;
  uint64_t rdma_requests = 0;
  uint64_t bytes_read = 0;       // payload bytes answered
  uint64_t rdma_bytes_read = 0;  // written into registered buffers
  uint64_t not_found = 0;
  uint64_t bad_requests = 0;     // answered with status 3 for being malformed
  uint64_t host_errors = 0;      // answered with status 3 for our own fault
  uint64_t blocking_reads = 0;   // that went to the blocking runner
  std::string last_bad_request;  // reason: numbers and our own words
  std::string last_host_error;
};

}  // namespace vmbfs
