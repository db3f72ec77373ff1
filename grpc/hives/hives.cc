#include "grpc/hives/hives.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/blob/whole_blob.h"
#include "grpc/convert/names.h"
#include "grpc/convert/status.h"
#include "grpc/convert/utf8.h"

namespace vmbfs::rpc {
namespace {

constexpr char kBlobField[] = "attachment.file.blob";
// Of an error's lines together: a status has kMessageBytesMax, and a word on the
// lines left out needs room too.
constexpr size_t kErrorBytesMax = kMessageBytesMax - 64;
constexpr size_t kErrorLineBytesMax = 512;

// Valid UTF-8 of at most `bytes_max`.
std::string Cut(std::string_view line, size_t bytes_max) {
  constexpr std::string_view kEllipsis = "…";
  if (line.size() <= bytes_max) return ValidUtf8(line, bytes_max);
  size_t end = bytes_max - kEllipsis.size();
  while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xc0) == 0x80) --end;
  return ValidUtf8(absl::StrCat(std::string(line.substr(0, end)), std::string(kEllipsis)),
                   bytes_max);
}

std::vector<std::string> LinesOf(const absl::Status& status) {
  return absl::StrSplit(status.message(), '\n');
}

}  // namespace

absl::StatusOr<std::vector<std::byte>> ReadContent(Host& host, const std::string& sha256,
                                                   uint64_t bytes_max,
                                                   std::string_view too_large_reason) {
  auto bytes = ReadBlob(host.blobs(), sha256, bytes_max);
  const std::string message(bytes.status().message());
  switch (bytes.status().code()) {
    case absl::StatusCode::kOk:
      return bytes;
    case absl::StatusCode::kNotFound:
      return HostError(absl::StatusCode::kNotFound, "BLOB_NOT_FOUND",
                       absl::StrCat(BlobName(sha256), " does not exist: upload it first"));
    case absl::StatusCode::kResourceExhausted:
      return HostError(bytes.status().code(), too_large_reason, message);
    default:
      return HostError(absl::StatusCode::kInternal, "BLOB_STORE_FAILED", message);
  }
}

absl::Status HiveError(const absl::Status& status, std::string_view reason,
                       std::string_view field) {
  std::vector<std::string> kept;
  size_t bytes = 0;
  const std::vector<std::string> lines = LinesOf(status);
  for (const std::string& line : lines) {
    std::string cut = Cut(line, kErrorLineBytesMax);
    if (bytes + cut.size() + 1 > kErrorBytesMax) break;
    bytes += cut.size() + 1;
    kept.push_back(std::move(cut));
  }
  if (kept.size() < lines.size()) {
    kept.push_back(absl::StrCat(lines.size() - kept.size(), " more errors are left out"));
  }
  const std::string message = absl::StrJoin(kept, "\n");
  if (absl::IsResourceExhausted(status)) {
    return HostError(status.code(), "IMC_TOO_LARGE", message);
  }
  return FieldError(field, reason, message);
}

absl::StatusOr<hive::ImcValidation> Validate(std::span<const std::byte> hive,
                                             std::string_view field) {
  auto validation = hive::ValidateImc(hive);
  if (!validation.ok()) return HiveError(validation.status(), "IMC_HIVE_INVALID", field);
  return validation;
}

void LineCollector::operator()(const std::string& line) {
  if (left_out_ == 0 && static_cast<size_t>(out_.size()) < kLinesMax) {
    std::string cut = Cut(line, kLineBytesMax);
    bytes_ += cut.size();
    if (bytes_ <= kLinesBytesMax) {
      *out_.Add() = std::move(cut);
      return;
    }
  }
  ++left_out_;
}

void AddWarnings(const std::vector<std::string>& warnings, Texts& out) {
  for (const std::string& warning : warnings) {
    if (static_cast<size_t>(out.size()) == kWarningsMax) {
      *out.Add() = "there are more warnings";
      return;
    }
    *out.Add() = Cut(warning, kLineBytesMax);
  }
}

absl::StatusOr<std::vector<std::string>> WarningsAbout(Host& host, DeviceKind device,
                                                       const std::string& sha256, bool strict) {
  std::vector<std::string> warnings;
  if (device != DeviceKind::kImc) {
    if (!strict) return warnings;
    return FieldError("strict", "STRICT_NOT_SUPPORTED",
                      "strict is for imc only: boot takes any file");
  }
  const auto bytes = ReadContent(host, sha256, kImcBytesMax, "CONTENT_SIZE_INVALID");
  if (absl::IsInternal(bytes.status())) {
    if (strict) return bytes.status();
    warnings.push_back(absl::StrCat("not checked: ", bytes.status().message()));
  }
  if (!bytes.ok()) return warnings;
  if (strict) {
    auto valid = Validate(*bytes, kBlobField);
    if (!valid.ok()) return valid.status();
    return std::move(valid->warnings);
  }
  auto valid = hive::ValidateImc(*bytes);
  if (valid.ok()) return std::move(valid->warnings);
  for (const std::string& line : LinesOf(valid.status())) {
    warnings.push_back(absl::StrCat("not a valid hive: ", line));
  }
  return warnings;
}

}  // namespace vmbfs::rpc
