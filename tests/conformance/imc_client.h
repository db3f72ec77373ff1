// The talk with a vmbfs device that most statements begin with.
//
// Source: shared/specs/vmbfs.md.

#pragma once

#include <cstdint>
#include <string_view>

#include "absl/strings/string_view.h"
#include "tests/conformance/bytes.h"
#include "tests/conformance/raw_channel.h"
#include "tests/conformance/raw_guest.h"
#include "tests/conformance/vmbfs_messages.h"

namespace vmbfs::conformance {

// A guest with the IMC channel open and a version agreed.
struct ReadyImc {
  ReadyImc(const KitOptions& options, Verdict& verdict, const ChannelShape& shape = {},
           const ContactFields& contact = {});

  RawGuest guest;
  RawChannel channel;

  // Closes, tears down, and opens with empty rings.
  void OpenAnew();
  // The same, and agrees on a version.
  void Reopen();
  // The next request is answered as it should be.
  void ExpectServed();
  // The channel answers nothing more, and a new open serves again.
  void ExpectStopped(absl::string_view after);
};

// Agrees on a version.
void AgreeOnVersion(RawGuest& guest, RawChannel& channel);
// The request for the hive's size is answered with status 0.
void ExpectServed(RawGuest& guest, RawChannel& channel);

struct FileInfo {
  uint32_t status = 0;
  bool directory = false;
  bool rdma = false;
  uint64_t bytes = 0;
};
// Sizes and types are checked.
FileInfo GetInfo(RawGuest& guest, RawChannel& channel, std::u16string_view path = kHive);

struct ReadResult {
  uint32_t status = 0;
  Bytes data{};
};
ReadResult ParseReadResponse(Verdict& verdict, ByteView response, uint32_t asked_bytes);
ReadResult ReadFile(RawGuest& guest, RawChannel& channel, uint32_t count, uint64_t offset,
                    std::u16string_view path = kHive);

}  // namespace vmbfs::conformance
