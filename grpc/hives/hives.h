// What the services say about hives: where the bytes come from, what is wrong
// with them, and texts that fit into an answer.
//
// Trust: names, bytes and texts made of them are a caller's.

#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/hive/imc_build.h"
#include "core/host/host.h"

namespace vmbfs::rpc {

using Texts = google::protobuf::RepeatedPtrField<std::string>;

// Of one line of text; a longer one is cut, and ends with an ellipsis then.
inline constexpr size_t kLineBytesMax = 1024;
inline constexpr size_t kWarningsMax = 100;
inline constexpr size_t kLinesMax = 4096;
inline constexpr size_t kLinesBytesMax = 1 << 20;

// The content of a blob. Waits for the disk.
// Errors: kNotFound ("BLOB_NOT_FOUND"), kResourceExhausted above `bytes_max`
// (`too_large_reason`), kInternal ("BLOB_STORE_FAILED").
absl::StatusOr<std::vector<std::byte>> ReadContent(Host& host, const std::string& sha256,
                                                   uint64_t bytes_max,
                                                   std::string_view too_large_reason);

// An error of core/hive about `field`, with as many of its lines as a status has
// room for, and a word on the others. kResourceExhausted has the reason
// "IMC_TOO_LARGE"; all other codes become kInvalidArgument with `reason`.
absl::Status HiveError(const absl::Status& status, std::string_view reason, std::string_view field);

// hive::ValidateImc, with "IMC_HIVE_INVALID" as the reason.
absl::StatusOr<hive::ImcValidation> Validate(std::span<const std::byte> hive,
                                             std::string_view field);

// Keeps the first lines it gets, up to kLinesMax and kLinesBytesMax, and counts
// those it leaves out.
class LineCollector {
 public:
  explicit LineCollector(Texts& out) : out_(out) {}
  void operator()(const std::string& line);
  int64_t left_out() const { return left_out_; }

 private:
  Texts& out_;
  size_t bytes_ = 0;
  int64_t left_out_ = 0;
};

// The first kWarningsMax, and a word on the others.
void AddWarnings(const std::vector<std::string>& warnings, Texts& out);

// What there is to say about the content that a device is given: on imc, what is
// wrong with it as a hive. With `strict` an invalid hive is an error, and so is
// the word `strict` for another device. Content that is not there, or of a wrong
// size, is the host's to refuse: without `strict` nothing is said of it.
absl::StatusOr<std::vector<std::string>> WarningsAbout(Host& host, DeviceKind device,
                                                       const std::string& sha256, bool strict);

}  // namespace vmbfs::rpc
