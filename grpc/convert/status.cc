#include "grpc/convert/status.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "core/host/host.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/convert/utf8.h"

namespace vmbfs::rpc {
namespace {

// Which field an error is about, on its way to BadRequest.
constexpr char kFieldUrl[] = "type.vmbfs/field";
// Which resource it is about, in place of the call's.
constexpr char kResourceUrl[] = "type.vmbfs/resource";
constexpr int64_t kRetryAfterSeconds = 1;

// The codes are the same numbers on both sides.
static_assert(static_cast<int>(absl::StatusCode::kNotFound) == ::grpc::StatusCode::NOT_FOUND);
static_assert(static_cast<int>(absl::StatusCode::kUnavailable) == ::grpc::StatusCode::UNAVAILABLE);

std::string ReasonOrCode(const absl::Status& status) {
  std::string reason = ReasonOf(status);
  return reason.empty() ? absl::StatusCodeToString(status.code()) : reason;
}

void AddErrorInfo(const std::string& reason, const std::string& resource,
                  google::rpc::Status& out) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain(std::string(kErrorDomain));
  if (!resource.empty()) (*info.mutable_metadata())["resource"] = resource;
  out.add_details()->PackFrom(info);
}

void AddDetail(const absl::Status& status, const std::string& reason, const std::string& resource,
               google::rpc::Status& out) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument: {
      const absl::optional<absl::Cord> field = status.GetPayload(kFieldUrl);
      if (!field) return;
      google::rpc::BadRequest detail;
      auto* violation = detail.add_field_violations();
      violation->set_field(std::string(*field));
      violation->set_description(out.message());
      out.add_details()->PackFrom(detail);
      return;
    }
    case absl::StatusCode::kFailedPrecondition: {
      google::rpc::PreconditionFailure detail;
      auto* violation = detail.add_violations();
      violation->set_type(reason);
      violation->set_subject(resource);
      violation->set_description(out.message());
      out.add_details()->PackFrom(detail);
      return;
    }
    case absl::StatusCode::kResourceExhausted: {
      if (reason == kBusyReason) {
        google::rpc::RetryInfo detail;
        detail.mutable_retry_delay()->set_seconds(kRetryAfterSeconds);
        out.add_details()->PackFrom(detail);
        return;
      }
      google::rpc::QuotaFailure detail;
      auto* violation = detail.add_violations();
      violation->set_subject(resource);
      violation->set_description(out.message());
      out.add_details()->PackFrom(detail);
      return;
    }
    default:
      return;
  }
}

}  // namespace

absl::Status BusyError() {
  return HostError(absl::StatusCode::kResourceExhausted, kBusyReason,
                   "the server is busy: call again in a second");
}

absl::Status FieldError(std::string_view field, std::string_view reason, std::string_view message) {
  return AboutField(HostError(absl::StatusCode::kInvalidArgument, reason, message), field);
}

absl::Status AboutField(absl::Status status, std::string_view field) {
  if (status.code() == absl::StatusCode::kInvalidArgument && !status.GetPayload(kFieldUrl)) {
    status.SetPayload(kFieldUrl, absl::Cord(absl::string_view(field.data(), field.size())));
  }
  return status;
}

absl::Status AboutResource(absl::Status status, std::string_view resource) {
  if (!status.ok() && !status.GetPayload(kResourceUrl)) {
    status.SetPayload(kResourceUrl,
                      absl::Cord(absl::string_view(resource.data(), resource.size())));
  }
  return status;
}

::grpc::Status ToGrpcStatus(const absl::Status& status, std::string_view resource) {
  if (status.ok()) return ::grpc::Status::OK;
  const std::string reason = ReasonOrCode(status);
  const absl::optional<absl::Cord> own = status.GetPayload(kResourceUrl);
  const std::string subject =
      ValidUtf8(own ? std::string(*own) : std::string(resource), kResourceBytesMax);

  google::rpc::Status wire;
  wire.set_code(static_cast<int>(status.code()));
  wire.set_message(ValidUtf8(std::string(status.message()), kMessageBytesMax));
  AddErrorInfo(reason, subject, wire);
  AddDetail(status, reason, subject, wire);
  return ::grpc::Status(static_cast<::grpc::StatusCode>(status.code()), wire.message(),
                        wire.SerializeAsString());
}

absl::Status FromGrpcStatus(const ::grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  google::rpc::Status wire;
  google::rpc::ErrorInfo info;
  if (wire.ParseFromString(status.error_details())) {
    for (const auto& detail : wire.details()) {
      if (detail.UnpackTo(&info)) return HostError(code, info.reason(), status.error_message());
    }
  }
  return absl::Status(code, status.error_message());
}

}  // namespace vmbfs::rpc
